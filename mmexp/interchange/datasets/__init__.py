"""Converters from the official raw formats of the papers' data to JSON lines: ``mmexp convert NAME RAW OUT``."""

from functools import partial

from mmexp.interchange.datasets.base import Converter, convert
from mmexp.interchange.datasets.boxes import refcoco, vgloc
from mmexp.interchange.datasets.captions import coyo100m
from mmexp.interchange.datasets.choice import aokvqa, sqa
from mmexp.interchange.datasets.conversations import llava150k, sharegpt
from mmexp.interchange.datasets.mixture import MIXTURE, OKVQA, SOURCES, mixture
from mmexp.interchange.datasets.vqa import gqa, ocrvqa, vqav2, vsr

CONVERTERS: dict[str, Converter] = {
    "aokvqa": Converter(aokvqa, "folder with aokvqa_v1p0_train.json"),
    "coyo100m": Converter(
        coyo100m, "folder with COYO-700M's *.parquet; OUT is img2dataset's input (jsonl: url, caption)"
    ),
    "gqa": Converter(gqa, "folder with train_balanced_questions.json"),
    "llava150k": Converter(
        llava150k, "folder with complex_reasoning_77k.json, conversation_58k.json and detail_23k.json"
    ),
    "ocrvqa": Converter(ocrvqa, "folder with dataset.json"),
    "refcoco": Converter(lambda raw: refcoco(raw, "refcoco"), "folder with MDETR's finetune_refcoco_train.json"),
    "refcocog": Converter(lambda raw: refcoco(raw, "refcocog"), "folder with MDETR's finetune_refcocog_train.json"),
    "refcocop": Converter(lambda raw: refcoco(raw, "refcoco+"), "folder with MDETR's finetune_refcoco+_train.json"),
    "sharegpt": Converter(sharegpt, "folder with llava_v1_5_sharegpt40k.json"),
    "sqa": Converter(sqa, "folder with llava_train_QCM-LEPA.json"),
    "vgloc": Converter(vgloc, "folder with Visual Genome's image_data.json and region_descriptions.json"),
    "vqav2": Converter(
        vqav2, "folder with v2_OpenEnded_mscoco_train2014_questions.json and v2_mscoco_train2014_annotations.json"
    ),
    "vsr": Converter(vsr, "folder with train.jsonl of the random split"),
}
"""Name of the dataset in the data config ``honeybee`` -> how it is made; ``mix_...``: those of ``ladder``."""

for _source in SOURCES:
    _needed = f"{MIXTURE} and OKVQA's {OKVQA}" if _source in ("vqav2", "okvqa") else MIXTURE
    CONVERTERS[f"mix_{_source}"] = Converter(partial(mixture, source=_source), f"folder with {_needed}")

__all__ = ["CONVERTERS", "Converter", "convert"]
