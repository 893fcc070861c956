"""Clicks and boxes on the page for masks: small random SAMs from a Hub answer as transformers has them answer."""

import gzip
import json

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

from hf_lowlabel.cli import main
from hf_lowlabel.errors import UserError
from hf_lowlabel.labeling.mask_assist import Assistant
from hf_lowlabel.labeling.mask_page import MaskSession
from tests.transformers_repos import files_of

SIDE = 64


def sam2():
    backbone = tf.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[4],
    )
    vision = tf.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompt = tf.Sam2PromptEncoderConfig(hidden_size=32, image_size=SIDE, patch_size=16)
    decoder = tf.Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32)
    config = tf.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    size = {"height": SIDE, "width": SIDE}
    return tf.Sam2Model(config), tf.Sam2Processor(
        tf.Sam2ImageProcessor(size=size, mask_size={"height": 16, "width": 16})
    )


def sam():
    vision = tf.SamVisionConfig(
        hidden_size=32,
        output_channels=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=16,
        window_size=2,
        global_attn_indexes=[1],
        mlp_dim=32,
        num_pos_feats=16,
    )
    prompt = tf.SamPromptEncoderConfig(hidden_size=32, image_size=SIDE, patch_size=16)
    decoder = tf.SamMaskDecoderConfig(hidden_size=32, mlp_dim=32, num_attention_heads=4, iou_head_hidden_dim=32)
    config = tf.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    processor = tf.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    return tf.SamModel(config), tf.SamProcessor(processor)


@pytest.mark.parametrize("make, video", [(sam2, False), (sam2, True), (sam, False)])
def test_clicks_and_boxes_are_answered_as_by_transformers(hub, tmp_path, make, video):
    """SAM 2 is kept on the Hub as its video model; of one click the likeliest of three masks is taken."""
    torch.manual_seed(0)
    model, processor = make()
    model.half().save_pretrained(tmp_path / "repo")
    model.float().eval()
    processor.save_pretrained(tmp_path / "repo")
    if video:
        file = tmp_path / "repo" / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "model_type": "sam2_video"}))
    hub.add("model", "facebook/tiny", files_of(tmp_path / "repo"))
    image = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    folder = tmp_path / "photos" / "images"
    folder.mkdir(parents=True)
    Image.fromarray(image).save(folder / "a.png")
    page = MaskSession(tmp_path / "photos", classes=("ground", "disc"), assist="facebook/tiny")
    assert page.state()["assist"]
    for points, box in (([[20, 10, 1]], None), ([[20, 10, 1], [5, 5, 0]], None), ([], [4, 6, 40, 30])):
        asked = dict(points=";".join(",".join(map(str, p)) for p in points), box=",".join(map(str, box or [])))
        found = np.frombuffer(gzip.decompress(page.get("/assist", {"file": "a.png", **asked}).content), np.uint8)
        given = dict(input_boxes=[[[float(v) for v in box]]]) if box else {}
        if points:
            given |= dict(input_points=[[[p[:2] for p in points]]], input_labels=[[[p[2] for p in points]]])
        inputs = processor(images=image, **given, return_tensors="pt")
        sizes = {k: inputs[k] for k in ("original_sizes", "reshaped_input_sizes") if k in inputs}
        with torch.no_grad():
            said = model(**{k: v for k, v in inputs.items() if k not in sizes}, multimask_output=len(points) == 1)
        masks = processor.post_process_masks(said.pred_masks, **sizes)[0].reshape(-1, 40, 56)
        assert (found.reshape(40, 56) == masks[int(said.iou_scores.argmax())].numpy()).all()
    assert len(page.assistant.embedded) == 1  # the heavy part once for an image
    for asked in ({}, {"points": "1,2"}, {"points": "a,b,1"}, {"points": "99,5,1"}, {"box": "5,5,1,1"}):
        with pytest.raises(UserError):
            page.get("/assist", {"file": "a.png", **asked})


def test_what_is_no_sam(hub, tmp_path, capsys):
    hub.add("model", "org/vit", {"config.json": json.dumps({"model_type": "vit"}).encode()})
    with pytest.raises(UserError, match="type of model for --assist"):
        Assistant("org/vit")
    files = {"config.json": json.dumps({"model_type": "sam2"}).encode(), "pytorch_model.bin": b"x"}
    hub.add("model", "org/pickle", files)
    with pytest.raises(UserError, match="cannot be loaded for --assist"):
        Assistant("org/pickle")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["label", str(tmp_path), "--task", "segmentation", "--assist", "org/none", "--no-browser"]) == 2
    assert "org/none" in capsys.readouterr().err
    assert main(["loop", "digits", "--assist", "org/vit"]) == 2
    assert "--assist is for masks" in capsys.readouterr().err
