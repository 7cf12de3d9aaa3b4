"""From dump files to a cold-start split: formats, cleaning, overlap, split, synthetic data."""

from scdr.data.checking import ReadReport
from scdr.data.columns import Columns
from scdr.data.examples import example_paths
from scdr.data.formats import FORMATS
from scdr.data.interactions import Interactions, deduplicate, from_columns, k_core
from scdr.data.preflight import preflight
from scdr.data.preparing import prepare_domain
from scdr.data.presets import PRESETS, preset
from scdr.data.reading import read_domain
from scdr.data.scenario import CrossDomain, cross_domain
from scdr.data.split import ColdStartSplit, TrainingData, cold_start_split, source_users
from scdr.data.statistics import DomainStatistics, PairStatistics, dataset_card, statistics
from scdr.data.synthetic import Planted, planted

__all__ = [
    "FORMATS",
    "PRESETS",
    "ColdStartSplit",
    "Columns",
    "CrossDomain",
    "DomainStatistics",
    "Interactions",
    "PairStatistics",
    "Planted",
    "ReadReport",
    "TrainingData",
    "cold_start_split",
    "cross_domain",
    "dataset_card",
    "deduplicate",
    "example_paths",
    "from_columns",
    "k_core",
    "planted",
    "preflight",
    "prepare_domain",
    "preset",
    "read_domain",
    "source_users",
    "statistics",
]
