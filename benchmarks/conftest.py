"""Nothing is timed unless its result agrees with the reference's."""

import os

from pynn.bench import contenders


def pytest_report_header(config):
    return (
        f"{os.cpu_count()} CPUs; instruction sets: {', '.join(contenders.ISAS)}; "
        f"not supported by this CPU: {', '.join(contenders.LACKING) or 'none'}; "
        f"peers: {', '.join(contenders.PEERS)}"
    )


def pytest_configure(config):
    config.option.benchmark_columns = ["median", "min", "stddev", "rounds"]
