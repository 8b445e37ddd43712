"""Names that ``datasets`` no longer exports, by the first version read without them; from the released packages."""

from __future__ import annotations

#: no constructor of ``datasets`` is compared
BASES: dict[str, str] = {}
ROWS: dict[str, str] = {}
REMOVED: dict[str, str] = {
    "2.0.0": "import_main_class prepare_module set_progress_bar_enabled temp_seed",
    "3.0.2": (
        "AudioClassification AutomaticSpeechRecognition BeamBasedBuilder ImageClassification LanguageModeling Metric "
        "MetricInfo QuestionAnsweringExtractive Summarization TaskTemplate TextClassification inspect_dataset "
        "inspect_metric list_datasets list_metrics load_metric set_caching_enabled"
    ),
}
