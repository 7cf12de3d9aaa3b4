"""SCDR and its two ablations: SMF pretraining, then a sharpness-aware mapping (Algorithm 1).

1. Each domain: `min_{U,V} sum max_{||delta|| <= rho} (r - <u + delta, v>)^2` (Eq. 10).
2. Mapping: `min_{theta,u_s} max_{||delta|| <= rho} (r - <f_U(u_s + delta; theta), v_t>)^2` (Eq. 8,
   9), over the target ratings of training users, with delta by k steps of projected sign gradient
   ascent (Eq. 12, 13) and gradients that take it as a constant (Eq. 15).
3. A cold-start user is `f_U(u_s)` (Eq. 16).

SCDR- is step 1 with k = 0 (Table VII); task mapping is both steps with k = 0.

G. Zeng, Q. Zhang, G. Zhang, J. Lu, "Sharpness-Aware Cross-Domain Recommendation to Cold-Start
Users".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, within
from scdr.methods.base import (
    FactorPredictor,
    FitContext,
    Method,
    TargetUsers,
    training_rows,
    validation_rows,
)
from scdr.methods.pretraining import pretrain_domains
from scdr.models import MappingConfig, PretrainConfig, target_items, train_mapping
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import MAPPING_SPACE, PAPER_MAPPING, SHARP_MAPPING_SPACE
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE, SHARP_PRETRAIN_SPACE


@dataclass(frozen=True, kw_only=True)
class ScdrConfig:
    """Hyper-parameters of SCDR, SCDR- and task mapping."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    mapping: MappingConfig = field(default_factory=MappingConfig)


def fit(data: TrainingData, config: ScdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then train the mapping.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    with context.mapping_stage(config.mapping.epochs) as advance:
        mapping, source_vectors = train_mapping(
            source.user_vectors(),
            items,
            training_rows(data, context.device),
            validation_rows(data, context.device),
            config.mapping,
            seed=(context.seed, 2),
            advance=advance,
        )
    return FactorPredictor(
        source_vectors,
        mapping,
        items,
        fold_in=RidgeFoldIn.as_pretrained(source, config.pretrain),
        target_users=TargetUsers.of(target.user_vectors(), data.target),
    )


_CITATION = "Zeng, Zhang, Zhang, Lu: Sharpness-Aware Cross-Domain Recommendation"


def _variant(name: str, title: str, *, sharp_pretraining: bool, sharp_mapping: bool) -> Method:
    def arm(config: ScdrConfig) -> ScdrConfig:
        pretrain, mapping = config.pretrain, config.mapping
        if not sharp_pretraining:
            pretrain = replace(pretrain, steps=0)
        if not sharp_mapping:
            mapping = replace(mapping, steps=0)
        return ScdrConfig(pretrain=pretrain, mapping=mapping)

    return Method(
        name=name,
        title=title,
        citation=_CITATION,
        cross_domain=True,
        mapping_based=True,
        presets={
            "default": arm(ScdrConfig()),
            "paper": arm(ScdrConfig(pretrain=PAPER_PRETRAIN, mapping=PAPER_MAPPING)),
        },
        fit=fit,
        search_space=within(
            "pretrain", SHARP_PRETRAIN_SPACE if sharp_pretraining else PRETRAIN_SPACE
        )
        | within("mapping", SHARP_MAPPING_SPACE if sharp_mapping else MAPPING_SPACE),
    )


SCDR = _variant("scdr", "SCDR", sharp_pretraining=True, sharp_mapping=True)
SCDR_MINUS = _variant("scdr_minus", "SCDR-", sharp_pretraining=False, sharp_mapping=True)
TASK_MAPPING = _variant(
    "task_mapping", "Task mapping", sharp_pretraining=False, sharp_mapping=False
)
