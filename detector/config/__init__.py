"""What a run is, as typed and checked values: the schema, the registries, the options."""

from detector.config.train import (
    Config,
    EMAConfig,
    EvaluationConfig,
    Evaluator,
    LoaderConfig,
    Precision,
    ProbeConfig,
    Ramp,
    check_parts,
    from_plain,
    num_processors,
)

__all__ = [
    "Config",
    "EMAConfig",
    "EvaluationConfig",
    "Evaluator",
    "LoaderConfig",
    "Precision",
    "ProbeConfig",
    "Ramp",
    "check_parts",
    "from_plain",
    "num_processors",
]
