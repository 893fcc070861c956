"""Parquet files and data sets on the Hub, through `datasets`."""
