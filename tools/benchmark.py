"""Times a step and inference beside torchvision's RetinaNet: `python tools/benchmark.py`."""

from __future__ import annotations

from cli import main
from omegaconf import DictConfig


def benchmark(node: DictConfig) -> None:
    """Both take turns in this process; prints a table and writes JSON where a file is given."""
    from detector import config, schema
    from detector.registry import import_plugins
    from detector.schema import require
    from detector.startup import check_versions
    from detector.tool_config import BenchmarkConfig

    train = config.plain_values(node)
    checked = schema.build(BenchmarkConfig, {**train.pop("benchmark"), "train": train})
    require(checked.train.prior != "from_data", "prior: from_data given, a number is needed here")
    check_versions()
    import_plugins(checked.train.plugins)
    config.check_parts(checked.train)

    from detector import distributed
    from detector.engine.benchmark import compare
    from detector.engine.benchmark_report import table, write

    world = distributed.start(checked.train.device)
    result = compare(checked, train, world)
    print(table(result))
    if checked.output is not None:
        write(result, checked.output)
        print(f"written: {checked.output}")


if __name__ == "__main__":
    main("benchmark", benchmark)
