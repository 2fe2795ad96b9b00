"""Parquet files are read one row group after the other, where datasets has the whole file in memory meanwhile."""

from __future__ import annotations

from functools import cache


@cache
def read_by_groups() -> None:
    """Has datasets read Parquet without pyarrow's buffer of a whole file, which is meant for those that are far away.

    The files of a hub are on this machine before they are read.
    """
    import pyarrow.dataset
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

    complete = ParquetConfig.__post_init__

    def __post_init__(config: ParquetConfig) -> None:
        complete(config)
        if config.fragment_scan_options is None:
            config.fragment_scan_options = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False)

    ParquetConfig.__post_init__ = __post_init__
