"""The table of docs/scdr_b.md that says what sharpness buys in SCDR-B.

    python bench/sharpness.py --pair NAME SOURCE TARGET --pair ...

Four arms: sharpness in neither stage, in the mapping, in pretraining, in both. Each arm has the
same number of configurations: random penalties, the same ones in each arm, and where a stage is
sharp a random radius of its own. The one with the lowest RMSE of the mean on validation users is
kept, and its errors are those on test users. The last column is the default, whose penalties
validation users have not tuned. Without `--pair`: the example pair and planted data.

Penalties are "learned" by the recipe itself: by its factor models, which start from SMF's items
where pretraining is sharp, and from singular vectors otherwise. Or they are "fixed": factors of MF
or SMF, then users solved given the items and items given the users, once, at the same penalties,
without feedback.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from scdr.config import DataConfig
from scdr.data import ColdStartSplit, Interactions, TrainingData, cold_start_split
from scdr.evaluation import user_errors
from scdr.loading import load
from scdr.methods import FactorPredictor, FitContext
from scdr.methods.pretraining import pretrain_domain
from scdr.methods.scdr_b import BilinearMappingConfig, ScdrBConfig, fit_between
from scdr.models import Factors, PretrainConfig
from scdr.models.empirical_bayes import EmpiricalBayes, FactorConfig, fit_factors
from scdr.models.moments import Moments, Prior
from scdr.prediction import metrics_of, predict_test, predict_validation
from scdr.progress import Progress

BETA = 0.5
ARMS = {
    "off in both": (False, False),
    "sharp mapping": (False, True),
    "sharp pretraining": (True, False),
    "both": (True, True),
}
"""Whether pretraining and the mapping are sharp."""
DEFAULT = "default"
PENALTIES = ("learned", "fixed")
FACTOR_PENALTY, BIAS_PENALTY, PRETRAIN_PENALTY = (1e2, 1e5), (10.0, 300.0), (3.0, 30.0)
"""Ranges to draw from, evenly on a logarithmic scale."""
MAPPING_RADIUS, PRETRAIN_RADIUS = (0.03, 0.5), (0.02, 0.5)
RESAMPLES = 2000


@dataclass(frozen=True)
class Configuration:
    """What is tuned."""

    factor_penalty: float
    bias_penalty: float
    pretrain_penalty: float
    mapping_radius: float
    pretrain_radius: float

    def within(self, arm: str) -> Configuration:
        """The same without the sharpness that an arm leaves out."""
        pretraining, mapping = ARMS[arm]
        return dataclasses.replace(
            self,
            mapping_radius=self.mapping_radius if mapping else 0.0,
            pretrain_radius=self.pretrain_radius if pretraining else 0.0,
        )


@dataclass(frozen=True)
class Task:
    """One split, and how penalties of the factor models are found."""

    data: DataConfig
    penalties: str
    seed: int
    configurations: tuple[Configuration, ...]


@dataclass(frozen=True)
class Sums:
    """Over each test user's ratings: count, absolute errors, squared errors, float64 `[K, 3]`."""

    users: NDArray[np.object_]
    sums: NDArray[np.float64]


def configurations(count: int) -> tuple[Configuration, ...]:
    """Random ones, the same in each call."""
    ranges = (FACTOR_PENALTY, BIAS_PENALTY, PRETRAIN_PENALTY, MAPPING_RADIUS, PRETRAIN_RADIUS)
    low, high = np.log(np.array(ranges)).T
    drawn = np.exp(low + (high - low) * np.random.default_rng(0).random((count, len(ranges))))
    return tuple(Configuration(*row) for row in drawn.tolist())


class FactorModels:
    """The factor models of both domains; the last with and the last without sharpness are kept."""

    def __init__(self, data: TrainingData, penalties: str, context: FitContext) -> None:
        self._domains = {"source": data.source, "target": data.target}
        self._fit = {"learned": fitted, "fixed": solved_once}[penalties]
        self._learned = penalties == "learned"
        self._context = context
        self._kept: dict[bool, tuple[PretrainConfig, dict[str, EmpiricalBayes]]] = {}

    def of(self, configuration: Configuration) -> tuple[EmpiricalBayes, EmpiricalBayes]:
        """Source and target, the latter a copy that may be changed."""
        sharp = configuration.pretrain_radius > 0
        config = PretrainConfig(
            radius=configuration.pretrain_radius, sharp_epochs=20 if sharp else 0
        )
        if not self._learned:
            penalty = configuration.pretrain_penalty
            config = dataclasses.replace(config, user_penalty=penalty, item_penalty=penalty)
        if sharp not in self._kept or self._kept[sharp][0] != config:
            self._kept[sharp] = (
                config,
                {
                    name: self._fit(ratings, config, self._context, name)
                    for name, ratings in self._domains.items()
                },
            )
        models = self._kept[sharp][1]
        return models["source"], copy.deepcopy(models["target"])


def fitted(
    ratings: Interactions, config: PretrainConfig, context: FitContext, domain: str
) -> EmpiricalBayes:
    """The factor model of the recipe, started from SMF's items where pretraining is sharp."""
    start = None
    if config.sharp_epochs:
        start = pretrain_domain(ratings, config, context, domain).item.numpy()
    return fit_factors(
        ratings, FactorConfig(), seed=context.seed, threads=1, advance=silent, start=start
    )


def solved_once(
    ratings: Interactions, config: PretrainConfig, context: FitContext, domain: str
) -> EmpiricalBayes:
    """Users given pretrained items, then items given these users, at pretraining's penalties.

    A penalty is the noise over the prior variance; the noise is the pretrained factors' error.
    """
    factors = pretrain_domain(ratings, config, context, domain)
    model = EmpiricalBayes(ratings, config.dimension)
    model.noise = mean_squared_error(factors, ratings)
    bias, item = factors.item_bias.numpy(), factors.item.numpy()

    def prior(n: int, bias_penalty: float, penalty: float) -> Prior:
        return Prior.centred(n, model.noise / np.array([bias_penalty] + [penalty] * item.shape[1]))

    model.items = Moments.certain(
        np.concatenate([bias[:, None], item], axis=1),
        prior(ratings.n_items, config.item_bias_penalty, config.item_penalty),
    )
    model.users = Moments.expected(
        prior(ratings.n_users, config.user_bias_penalty, config.user_penalty)
    )
    model.sweep(learn_priors=False)
    return model


def mean_squared_error(factors: Factors, ratings: Interactions) -> float:
    user, item = factors.user_vectors().numpy(), factors.item.numpy()
    predicted = (user[ratings.users, :-1] * item[ratings.items]).sum(1) + user[ratings.users, -1]
    predicted += factors.offset + factors.item_bias.numpy()[ratings.items]
    return float(((ratings.ratings - predicted) ** 2).mean(dtype=np.float64))


def silent(**values: float) -> None:
    """Progress that nobody looks at."""


def mapped(
    configuration: Configuration, task: Task, data: TrainingData, models: FactorModels
) -> FactorPredictor:
    """The recipe at one configuration."""
    # One fold: the mean does not depend on the predictions that the distribution is fitted to.
    mapping = BilinearMappingConfig(
        radius=configuration.mapping_radius,
        factor_penalty=configuration.factor_penalty,
        bias_penalty=configuration.bias_penalty,
        folds=1,
    )
    config = ScdrBConfig(optimise="rmse", mapping=mapping)
    if task.penalties == "fixed":
        config = dataclasses.replace(config, feedback_sweeps=0)
    return fit_between(*models.of(configuration), data, config, FitContext(seed=task.seed))


def run(task: Task) -> dict[str, Sums]:
    """Test users' errors in each arm, by its configuration with the least error in validation."""
    torch.set_num_threads(1)
    domains = load(task.data, Progress(), core=5, strict=False).domains
    split = cold_start_split(domains, beta=BETA, seed=task.seed)
    data = split.training
    models = FactorModels(data, task.penalties, FitContext(seed=task.seed))
    kept: dict[str, tuple[float, FactorPredictor]] = {}
    for configuration in task.configurations:
        for arm in ARMS:
            predictor = mapped(configuration.within(arm), task, data, models)
            rmse = metrics_of(data.validation, predict_validation(predictor, data, clip=True)).rmse
            if arm not in kept or rmse < kept[arm][0]:
                kept[arm] = rmse, predictor
    found = {arm: sums_of(predictor, split) for arm, (_, predictor) in kept.items()}
    if task.penalties == "learned":
        factor_models = models.of(task.configurations[0].within("off in both"))
        context = FitContext(seed=task.seed)
        default = fit_between(*factor_models, data, ScdrBConfig(optimise="rmse"), context)
        found[DEFAULT] = sums_of(default, split)
    return found


def sums_of(predictor: FactorPredictor, split: ColdStartSplit) -> Sums:
    errors = user_errors(
        split.test.users, split.test.ratings, predict_test(predictor, split, clip=True)
    )
    n = errors.ratings
    ids = split.test.user_ids[errors.users]
    return Sums(ids, np.stack([n, n * errors.mae, n * errors.rmse**2], axis=1))


def mae_and_rmse(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of sums `[..., 3]`, `[..., 2]`."""
    means = sums[..., 1:] / sums[..., :1]
    return np.stack([means[..., 0], np.sqrt(means[..., 1])], axis=-1)


def pooled(found: list[Sums]) -> NDArray[np.float64]:
    """Sums over all seeds of each user, `[K, 3]`: one user's errors are not independent."""
    _, user = np.unique(np.concatenate([one.users for one in found]), return_inverse=True)
    sums = np.concatenate([one.sums for one in found])
    return np.stack([np.bincount(user, column) for column in sums.T], axis=1)


def rows_of(name: str, penalties: str, seeds: list[dict[str, Sums]]) -> list[str]:
    """The table's row of MAE and that of RMSE."""
    arms = np.stack([pooled([found[arm] for found in seeds]) for arm in seeds[0]])  # [A, K, 3]
    times = np.random.default_rng(0).multinomial(
        arms.shape[1], np.full(arms.shape[1], 1 / arms.shape[1]), RESAMPLES
    )
    drawn = mae_and_rmse(np.einsum("sk,akc->sac", times, arms))  # [S, A, 2]
    errors = mae_and_rmse(arms.sum(1))  # [A, 2]
    low, high = np.quantile(drawn[:, 1:] - drawn[:, :1], [0.025, 0.975], axis=0)
    rows = []
    for metric, title in enumerate(("MAE", "RMSE")):
        cells = [
            f"{errors[arm, metric] - errors[0, metric]:+.4f} "
            f"({low[arm - 1, metric]:+.4f} to {high[arm - 1, metric]:+.4f})"
            for arm in range(1, len(arms))
        ]
        cells += [""] * (len(ARMS) - len(cells))
        rows.append(" | ".join((f"| {name}", penalties, title, f"{errors[0, metric]:.4f}", *cells)))
    return [f"{row} |" for row in rows]


def tasks(given: argparse.Namespace) -> Iterator[tuple[str, Task]]:
    """Name of the pair, and what to run."""
    named = {
        name: partial(DataConfig, source=source, target=target)
        for name, source, target in given.pair
    } or {"Epinions Cat03 to Cat05": DataConfig}
    named[f"planted, signal {given.signal:g}"] = partial(
        DataConfig, synthetic="planted", signal=given.signal
    )
    tuned = configurations(given.configurations)
    for name, data in named.items():
        for penalties in PENALTIES:
            for seed in range(given.seeds):
                config = data(data_seed=seed) if name.startswith("planted") else data()
                yield name, Task(config, penalties, seed, tuned)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--pair", nargs=3, action="append", default=[], metavar=("NAME", "SOURCE", "TARGET")
    )
    parser.add_argument("--signal", type=float, default=0.6, help="of the planted pair")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--configurations", type=int, default=8, help="of each arm")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    columns = ("pair", "penalties", "error", *ARMS, DEFAULT)
    print("|", " | ".join(columns), "|")
    print("|", " | ".join("---" for _ in columns), "|", flush=True)
    with ProcessPoolExecutor(given.processes) as pool:
        names, todo = zip(*tasks(given), strict=True)
        found = zip(names, todo, pool.map(run, todo), strict=True)
        for (name, penalties), group in groupby(found, lambda one: (one[0], one[1].penalties)):
            print(*rows_of(name, penalties, [one[2] for one in group]), sep="\n", flush=True)


if __name__ == "__main__":
    main()
