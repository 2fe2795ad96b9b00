"""How datasets reads Parquet: without a buffer of the whole file, unless it is told otherwise."""

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datasets import load_dataset
from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig
from trl import DatasetMixtureConfig
from trl.scripts.utils import DatasetConfig

from trimtab.pipelines.data import loading


def test_a_file_is_not_buffered_as_a_whole(tmp_path, monkeypatch):
    options = []
    generate = Parquet._generate_tables

    def seen(self, *args, **given):
        options.append(self.config.fragment_scan_options)
        return generate(self, *args, **given)

    monkeypatch.setattr(Parquet, "_generate_tables", seen)
    pq.write_table(pa.table({"number": [1, 2]}), tmp_path / "train.parquet")
    rows = loading.load(DatasetMixtureConfig(datasets=[DatasetConfig(path=str(tmp_path))]))
    assert rows["number"][:] == [1, 2]
    assert [option.pre_buffer for option in options] == [False]
    given = ds.ParquetFragmentScanOptions(pre_buffer=True)
    assert ParquetConfig(fragment_scan_options=given).fragment_scan_options.pre_buffer
    load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "other"))
    assert len(options) == 2
