"""Members and parameters of what datasets makes, by version; from the released packages."""

from __future__ import annotations

#: class -> its public attributes and methods; ``lookup.py`` describes the marks of versions
MEMBERS: dict[str, str] = {
    "datasets.Dataset": (
        "add_column add_elasticsearch_index add_faiss_index add_faiss_index_from_external_arrays add_item "
        "align_labels_with_mapping batch>2.20.0 builder_name cache_files cast cast_column citation class_encode_column "
        "cleanup_cache_files column_names config_name data dataset_size description download_checksums download_size "
        "drop_index export<3.3.2 features filter flatten flatten_indices format formatted_as from_buffer from_csv from_dict "
        "from_file from_generator from_json from_list from_pandas from_parquet from_polars>2.14.7 from_spark from_sql "
        "from_text get_index get_nearest_examples get_nearest_examples_batch homepage info is_index_initialized iter "
        "license list_indexes load_elasticsearch_index load_faiss_index load_from_disk map num_columns num_rows "
        "prepare_for_task<3.3.2 push_to_hub remove_columns rename_column rename_columns repeat>2.20.0 reset_format "
        "save_faiss_index save_to_disk search search_batch select select_columns set_format set_transform shape shard "
        "shuffle size_in_bytes skip>2.14.7 sort split supervised_keys take>2.14.7 task_templates<3.3.2 to_csv to_dict "
        "to_iterable_dataset to_json to_list to_pandas to_parquet to_polars>2.14.7 to_sql to_tf_dataset train_test_split "
        "unique version with_format with_transform"
    ),
    "datasets.DatasetDict": (
        "align_labels_with_mapping cache_files cast cast_column class_encode_column cleanup_cache_files clear column_names "
        "copy data filter flatten flatten_indices formatted_as from_csv from_json from_parquet from_text fromkeys get items "
        "keys load_from_disk map num_columns num_rows pop popitem prepare_for_task<3.3.2 push_to_hub remove_columns "
        "rename_column rename_columns reset_format save_to_disk select_columns set_format set_transform setdefault shape "
        "shuffle sort unique update values with_format with_transform"
    ),
    "datasets.IterableDataset": (
        "add_column batch>2.20.0 builder_name cast cast_column citation column_names config_name dataset_size decode>3.3.2 "
        "description download_checksums download_size epoch>2.20.0 features filter from_csv>4.0.0 from_dict>4.0.0 from_file "
        "from_generator from_json>4.0.0 from_list>4.0.0 from_pandas>4.0.0 from_parquet>4.0.0 from_polars>4.0.0 from_spark "
        "from_text>4.0.0 homepage info iter license load_state_dict>2.14.7 map n_shards num_columns>3.3.2 num_shards>2.20.0 "
        "push_to_hub>3.3.2 remove_columns rename_column rename_columns repeat>2.20.0 reshard>4.0.0 select_columns set_epoch "
        "shard>2.20.0 shuffle size_in_bytes skip split state_dict>2.14.7 supervised_keys take task_templates<3.3.2 "
        "to_csv>3.3.2 to_dict>3.3.2 to_json>3.3.2 to_list>3.3.2 to_pandas>3.3.2 to_parquet>3.3.2 to_polars>3.3.2 "
        "to_sql>3.3.2 version with_format"
    ),
    "datasets.IterableDatasetDict": (
        "cast cast_column clear column_names>3.3.2 copy filter fromkeys get items keys map num_columns>3.3.2 pop popitem "
        "push_to_hub>3.3.2 remove_columns rename_column rename_columns select_columns setdefault shuffle update values "
        "with_format"
    ),
}

#: function or method -> its parameters; a ``!`` marks one without a default
CALLS: dict[str, str] = {
    "datasets.load_dataset": (
        "path! name data_dir data_files split cache_dir features download_config download_mode verification_mode "
        "keep_in_memory save_infos revision token streaming num_proc storage_options trust_remote_code>2.14.7<4.0.0 "
        "ignore_verifications<3.3.2 use_auth_token<3.3.2 task<3.3.2 **"
    ),
    "datasets.load_from_disk": "dataset_path! keep_in_memory storage_options fs<3.3.2",
    "datasets.concatenate_datasets": "dsets! info split axis",
    "datasets.interleave_datasets": "datasets! probabilities seed info split stopping_strategy",
    "datasets.Dataset.map": (
        "function with_indices with_rank input_columns batched batch_size drop_last_batch remove_columns keep_in_memory "
        "load_from_cache_file cache_file_name writer_batch_size features disable_nullable fn_kwargs num_proc "
        "suffix_template new_fingerprint desc try_original_type>3.3.2 on_mixed_types>4.0.0 **<3.3.2"
    ),
    "datasets.Dataset.filter": (
        "function with_indices with_rank>2.14.7 input_columns batched batch_size keep_in_memory load_from_cache_file "
        "cache_file_name writer_batch_size fn_kwargs num_proc suffix_template new_fingerprint desc"
    ),
    "datasets.Dataset.shuffle": (
        "seed generator keep_in_memory load_from_cache_file indices_cache_file_name writer_batch_size new_fingerprint"
    ),
    "datasets.Dataset.select": "indices! keep_in_memory indices_cache_file_name writer_batch_size new_fingerprint",
    "datasets.Dataset.train_test_split": (
        "test_size train_size shuffle stratify_by_column seed generator keep_in_memory load_from_cache_file "
        "train_indices_cache_file_name test_indices_cache_file_name writer_batch_size train_new_fingerprint "
        "test_new_fingerprint"
    ),
    "datasets.Dataset.rename_column": "original_column_name! new_column_name! new_fingerprint **<3.3.2",
    "datasets.Dataset.remove_columns": "column_names! new_fingerprint **<3.3.2",
    "datasets.Dataset.set_format": "type columns output_all_columns **",
    "datasets.Dataset.with_format": "type columns output_all_columns **",
    "datasets.Dataset.save_to_disk": "dataset_path! max_shard_size num_shards num_proc storage_options fs<3.3.2",
    "datasets.Dataset.push_to_hub": (
        "repo_id! config_name set_default>2.14.7 split data_dir>2.14.7 commit_message>2.14.7 commit_description>2.14.7 "
        "private token revision>2.14.7 create_pr>2.14.7 max_shard_size num_shards embed_external_files num_proc>3.3.2 "
        "branch<3.3.2"
    ),
    "datasets.Dataset.from_dict": "mapping! features info split on_mixed_types>4.0.0",
    "datasets.Dataset.from_list": "mapping! features info split on_mixed_types>4.0.0",
    "datasets.Dataset.from_pandas": "df! features info split preserve_index",
    "datasets.Dataset.from_generator": (
        "generator! features cache_dir keep_in_memory gen_kwargs num_proc split>2.20.0 fingerprint>4.0.0 **"
    ),
    "datasets.Dataset.from_json": "path_or_paths! split features cache_dir keep_in_memory field num_proc **",
    "datasets.Dataset.from_csv": "path_or_paths! split features cache_dir keep_in_memory num_proc **",
    "datasets.Dataset.sort": (
        "column_names! reverse null_placement keep_in_memory load_from_cache_file indices_cache_file_name writer_batch_size "
        "new_fingerprint kind<3.3.2"
    ),
    "datasets.Dataset.to_json": "path_or_buf! batch_size num_proc storage_options>2.14.7 **",
    "datasets.Dataset.shard": "num_shards! index! contiguous keep_in_memory indices_cache_file_name writer_batch_size",
    "datasets.Dataset.add_column": "name! column! new_fingerprint feature>2.20.0",
    "datasets.Dataset.class_encode_column": "column! include_nulls",
    "datasets.Dataset.cast_column": "column! feature! new_fingerprint",
    "datasets.Dataset.select_columns": "column_names! new_fingerprint **<3.3.2",
    "datasets.Dataset.add_item": "item! new_fingerprint",
    "datasets.DatasetDict.map": (
        "function with_indices with_rank with_split>3.3.2 input_columns batched batch_size drop_last_batch remove_columns "
        "keep_in_memory load_from_cache_file cache_file_names writer_batch_size features disable_nullable fn_kwargs "
        "num_proc desc try_original_type>3.3.2 on_mixed_types>4.0.0"
    ),
    "datasets.DatasetDict.filter": (
        "function with_indices with_rank>2.14.7 input_columns batched batch_size keep_in_memory load_from_cache_file "
        "cache_file_names writer_batch_size fn_kwargs num_proc desc"
    ),
    "datasets.DatasetDict.shuffle": (
        "seeds seed generators keep_in_memory load_from_cache_file indices_cache_file_names writer_batch_size"
    ),
    "datasets.DatasetDict.rename_column": "original_column_name! new_column_name!",
    "datasets.DatasetDict.remove_columns": "column_names!",
    "datasets.DatasetDict.set_format": "type columns output_all_columns **",
    "datasets.DatasetDict.with_format": "type columns output_all_columns **",
    "datasets.DatasetDict.save_to_disk": ("dataset_dict_path! max_shard_size num_shards num_proc storage_options fs<3.3.2"),
    "datasets.DatasetDict.push_to_hub": (
        "repo_id! config_name set_default>2.14.7 data_dir>2.14.7 commit_message>2.14.7 commit_description>2.14.7 private "
        "token revision>2.14.7 create_pr>2.14.7 max_shard_size num_shards embed_external_files num_proc>3.3.2 branch<3.3.2"
    ),
    "datasets.DatasetDict.from_json": "path_or_paths! features cache_dir keep_in_memory **",
    "datasets.DatasetDict.from_csv": "path_or_paths! features cache_dir keep_in_memory **",
    "datasets.DatasetDict.sort": (
        "column_names! reverse null_placement keep_in_memory load_from_cache_file indices_cache_file_names "
        "writer_batch_size kind<3.3.2"
    ),
    "datasets.DatasetDict.class_encode_column": "column! include_nulls",
    "datasets.DatasetDict.cast_column": "column! feature!",
    "datasets.DatasetDict.select_columns": "column_names!",
    "datasets.IterableDataset.map": (
        "function with_indices input_columns batched batch_size drop_last_batch remove_columns features fn_kwargs"
    ),
    "datasets.IterableDataset.filter": "function with_indices input_columns batched batch_size fn_kwargs",
    "datasets.IterableDataset.shuffle": "seed generator buffer_size max_buffer_input_shards>4.0.0",
    "datasets.IterableDataset.take": "n!",
    "datasets.IterableDataset.skip": "n!",
    "datasets.IterableDataset.remove_columns": "column_names!",
    "datasets.IterableDataset.rename_column": "original_column_name! new_column_name!",
    "datasets.IterableDataset.with_format": "type",
}
