@pytest.mark.pictures
def test_a_run_leaves_everything_and_others_can_use_it(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        class_balanced=True,
        validation=2,
        output_dir=str(tmp_path / "run"),
        **SMALL,
    )
    left = {p.name for p in run.folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
        "split.json",
        "metrics.json",
        "training.yaml",
        "log.jsonl",
        "run.json",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "reliability.png",
        "checkpoints",
    } == left
    assert all((run.folder / name).stat().st_size > 2000 for name in left if name.endswith(".png"))
    seen = run.model.preprocessing
    assert (list(seen["mean"]), list(seen["std"])) == setup.statistics_of(
        run.recorder.pools["training"]
    )  # random weights know no other
    again = evaluate(str(run.folder), str(photos / "labeled"), output=str(tmp_path / "report"))
    assert again["accuracy"] == run.metrics["accuracy"] and again["confusion"] == run.metrics["confusion"]
    assert (tmp_path / "report" / "confusion.png").is_file()
    with pytest.warns(
        UserWarning,
        match="8 of the 24 images are labeled ones the model was trained with: results on them are too good",
    ):
        evaluate(str(run.folder), str(photos / "labeled"), dataset_split="train")
    assert not run.model.training
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["labels"]["number"] == 8 and facts["labels"]["per_class"] == {"dark": 4, "light": 4}
    (run.folder / "split.json").unlink()
    with pytest.raises(
        UserError, match="no folder for split 'test'.*or --dataset-split with another split, or --split with a manifest"
    ):
        evaluate(str(run.folder), str(photos / "labeled"))


def test_labels_here_and_raw_images_there(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        unlabeled_dataset=str(photos / "raw"),
        num_labels=8,
        test_fraction=0.25,
        output_dir=str(tmp_path),
        **SMALL,
    )
    assert len(run.recorder.pools["training"]) == 24 - 6 + 9


def test_an_unreadable_test_image_does_not_shift_the_labels_of_the_others(photos, tmp_path):
    shutil.copytree(photos / "labeled", tmp_path / "data")
    source = load_source(str(tmp_path / "data"))
    split = make_split(source, 8, test_fraction=0.25)
    split.save(tmp_path / "split.json")
    first = min(split.test, key=source.ids.index)  # of the class "dark", as the next two
    (tmp_path / "data" / first).write_bytes(b"\0" * (tmp_path / "data" / first).stat().st_size)
    run = finetune(
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "split.json"),
        max_bad=0.5,
        method="supervised",
        output_dir=str(tmp_path / "run"),
        **{k: v for k, v in SMALL.items() if k != "unlabeled_ratio"},
    )
    assert run.metrics["per_class_images"] == [2, 3]
    assert evaluate(str(run.folder), str(tmp_path / "data"), max_bad=0.5)["confusion"] == run.metrics["confusion"]


@pytest.mark.parametrize(
    "asked, validation, unlabeled, expected",
    [
        (None, True, True, "validation_accuracy"),
        (None, False, True, "sel"),
        (None, False, False, None),
        ("validation", True, True, "validation_accuracy"),
        ("sel", True, True, "sel"),
        ("last", True, True, None),
        ("validation", False, True, UserError),
        ("sel", True, False, UserError),
    ],
)
def test_which_weights_are_kept(asked, validation, unlabeled, expected):
    config = (
        FinetuneConfig(dataset="digits", num_labels=10, metric_for_best_model=asked)
        if asked
        else FinetuneConfig(dataset="digits", num_labels=10)
    )
    if expected is UserError:
        with pytest.raises(UserError, match="metric_for_best_model is"):
            finetune_run._keep_best(config, validation, unlabeled)
    else:
        assert finetune_run._keep_best(config, validation, unlabeled) == expected


def test_sel_looks_at_images_all_over_the_pool(monkeypatch):
    """Pools are sorted by class as folders are: the first images of one would be of one class."""
    asked = []
    monkeypatch.setattr(finetune_run, "SEL_IMAGES", 5)
    monkeypatch.setattr(
        finetune_run, "logits_of", lambda net, pool, view, at=None: asked.append(at) or torch.eye(2)[[0, 1, 1, 1]]
    )
    known = {"validation": (range(4), torch.tensor([0, 1, 1, 0]))}
    scores = finetune_run.watcher(known, None, range(101))(SimpleNamespace(evaluated=None), 1)
    assert scores["validation_accuracy"] == 0.75 and asked[0] is None and asked[1].tolist() == [0, 25, 50, 75, 100]


def test_dry_run_keeps_nothing(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = finetune(**{**SMALL, "max_steps": 1000}, dataset=str(photos / "labeled"), num_labels=8, dry_run=True)
    runs.summarise(run)
    text = capsys.readouterr().out
    assert "memory:" in text and "expected for 1000 steps" in text and "max_steps: 1000" in text
    assert run.progress.step == 2 and not list(tmp_path.iterdir()) and not run.folder.exists()


def test_best_weights_on_validation_are_kept(photos, tmp_path, monkeypatch):
    """The step with the best validation accuracy is what is saved; early stopping counts evaluations without a better one."""
    scores = iter([0.5, 0.9, 0.2, 0.1])
    kept = {}

    def watch(self):
        score = next(scores)
        self.history.append({"step": self.step})
        if self.best is None or score > self.best:
            kept["weights"] = {k: v.clone() for k, v in self.inner.evaluated.state_dict().items()}
        return {"validation_accuracy": score}

    real = finetune_run.Loop.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        self.evaluate = lambda trained, step: watch(self)

    monkeypatch.setattr(finetune_run.Loop, "__init__", init)
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        validation=4,
        eval_steps=2,
        early_stopping=2,
        output_dir=str(tmp_path),
        **{**SMALL, "max_steps": 20},
    )
    assert run.progress.step == 8 and run.progress.best_step == 4
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[k.removeprefix("timm_model.")], v) for k, v in kept["weights"].items())


def test_accumulation_changes_nothing_without_batchnorm(photos, tmp_path, monkeypatch):
    """Two micro-batches of half the size are the whole batch, up to rounding."""
    monkeypatch.setattr("hf_lowlabel.models.plain.nn.BatchNorm2d", lambda channels: nn.GroupNorm(1, channels))
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8, learning_rate=0.01, method_args={"tau": 0.0})
    finetune(**settings, output_dir=str(tmp_path / "one"))
    finetune(**settings, gradient_accumulation_steps=2, output_dir=str(tmp_path / "two"))
    a, b = load_file(tmp_path / "one" / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)


def test_bf16_compiles_and_learns_something(photos, tmp_path):
    run = finetune(
        dataset=str(photos / "labeled"),
        num_labels=8,
        precision="bf16",
        max_grad_norm=1.0,
        optimizer="adamw",
        lr_scheduler_type="cosine",
        warmup_ratio=0.1,
        head_lr=2.0,
        output_dir=str(tmp_path),
        **{**SMALL, "max_steps": 12, "learning_rate": 1e-3},
    )
    losses = [row["supervised"] for row in run.progress.history if "supervised" in row]
    assert all(np.isfinite(losses))
    assert load_file(tmp_path / "model.safetensors")["fc.weight"].dtype == torch.float32


def test_init_from_a_checkpoint(photos, tmp_path):
    settings = dict(SMALL, dataset=str(photos / "labeled"), num_labels=8)
    finetune(**settings, output_dir=str(tmp_path / "a"))
    checkpoint = tmp_path / "a" / "checkpoints" / "step-00000004"
    run = finetune(
        **{**settings, "learning_rate": 0.0, "weight_decay": 0.0},
        init_from=str(checkpoint),
        output_dir=str(tmp_path / "b"),
    )
    a, b = load_file(checkpoint / "objective.safetensors"), run.progress.inner.state_dict()
    assert all(
        torch.equal(a[k], b[k]) for k in a if k.startswith("model.") and "running" not in k and "num_batches" not in k
    )
    before = run.progress.inner.state_dict()
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step-00000004")
    again = finetune(
        **{**settings, "learning_rate": 0.0, "weight_decay": 0.0},
        init_from=str(checkpoint),
        output_dir=str(tmp_path / "b"),
        resume=True,
    )
    assert all(torch.equal(v, before[k]) for k, v in again.progress.inner.state_dict().items())
    with pytest.raises(UserError, match="init_from was"):
        finetune(**{**settings, "learning_rate": 0.0, "weight_decay": 0.0}, output_dir=str(tmp_path / "b"), resume=True)
    with pytest.raises(UserError, match="does not fit this method and model"):
        finetune(**{**settings, "model": "cnn6_32"}, init_from=str(checkpoint), output_dir=str(tmp_path / "c"))


@pytest.mark.pictures
def test_a_run_leaves_everything(masked, tmp_path):
    run = finetune(
        **SEGMENT,
        dataset=str(masked),
        classes=BOTH_MASKS,
        validation=2,
        method="cutmix",
        output_dir=str(tmp_path / "run"),
    )
    left = {p.name for p in run.folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "segmenter.py",
        "configuration_segmenter.py",
        "README.md",
        "split.json",
        "metrics.json",
        "training.yaml",
        "log.jsonl",
        "run.json",
        "curves.png",
        "predictions.png",
        "confusion.png",
        "checkpoints",
    } == left
    assert all((run.folder / name).stat().st_size > 2000 for name in left if name.endswith(".png"))
    facts = json.loads((run.folder / "run.json").read_text())
    assert facts["kind"] == "segmentation" and facts["labels"]["number"] == 4
    assert facts["labels"]["per_class"] == dict.fromkeys(BOTH_MASKS, 4)  # every mask of this set shows all three
    assert facts["data"]["images"] == 18 - 3 - 2  # test images and validation images are not trained on
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["images"] == 3 and {"miou", "dice", "pixel_accuracy", "validation_miou"} <= metrics.keys()
    assert run.progress.best_weights and metrics["validation_miou"] == run.progress.best
    card = ModelCard.load(run.folder / "README.md")
    assert card.data.pipeline_tag == "image-segmentation" and "predictions.png" in card.text
    assert "4 images with masks" in card.text


def test_segments_better_than_chance_after_a_few_steps(masked, tmp_path):
    """Plain colours are learned by the supervised baseline: geometry, targets and evaluation belong together."""
    settings = dict(
        SEGMENT, method="supervised", max_steps=60, learning_rate=0.01, method_args=dict(ema_decay=0.9), num_labels=8
    )
    run = finetune(**settings, dataset=str(masked), output_dir=str(tmp_path))
    assert run.metrics["miou"] > 0.8, run.metrics["per_class"]


def test_init_from_a_segmenter(masked, tmp_path):
    finetune(**SEGMENT, dataset=str(masked), method="supervised", output_dir=str(tmp_path / "a"))
    again = dict(SEGMENT, init_from=str(tmp_path / "a"), method="supervised", optimizer="sgd", learning_rate=0.0)
    finetune(**again, dataset=str(masked), output_dir=str(tmp_path / "b"))
    a, b = (load_file(tmp_path / k / "model.safetensors") for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "num_batches" not in k)
    with pytest.raises(UserError, match="found a segmenter of the classes class 0"):
        finetune(**again, dataset=str(masked), classes=BOTH_MASKS, output_dir=str(tmp_path / "c"))


def test_binary_masks_have_to_be_declared(masked, tmp_path):
    shutil.copytree(masked, tmp_path / "data")
    for path in (tmp_path / "data" / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    settings = dict(SEGMENT, dataset=str(tmp_path / "data"), method="supervised", max_steps=1)
    with pytest.raises(UserError, match="declare mask format 'binary'"):
        finetune(**settings, output_dir=str(tmp_path / "a"))
    run = finetune(**settings, mask_format="binary", output_dir=str(tmp_path / "b"))
    assert run.metrics["class_names"] == ["background", "object"] and "object_jaccard" in run.metrics


def test_a_mask_of_ignored_pixels_alone_is_a_warning(masked, tmp_path, caplog):
    """Its crops hold no pixel that counts: a loss of 0, not NaN."""
    shutil.copytree(masked, tmp_path / "data")
    rewrite(tmp_path / "data", _00=SQUARE + 255)
    (tmp_path / "labeled.txt").write_text("00\n03\n")
    settings = {k: v for k, v in SEGMENT.items() if k != "num_labels"} | dict(
        batch_size=1, logging_steps=1, method="supervised"
    )
    run = finetune(
        **settings,
        dataset=str(tmp_path / "data"),
        split=str(tmp_path / "labeled.txt"),
        output_dir=str(tmp_path / "run"),
    )
    assert "mask of image '00.png' has no pixel of any class" in caplog.text
    losses = [row["loss"] for row in run.progress.history if "loss" in row]
    assert 0.0 in losses and max(losses) > 0 and all(row["skipped"] == 0 for row in run.progress.history if "loss" in row)


def test_streaming_sees_what_a_resident_pool_shows(masked, tmp_path):
    for name, streaming in (("resident", False), ("streaming", True)):
        finetune(
            **SEGMENT,
            dataset=str(masked),
            method="cutmix",
            streaming=streaming,
            workers=0,
            output_dir=str(tmp_path / name),
        )
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("resident", "streaming"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_masks_here_and_raw_images_there(masked, tmp_path, monkeypatch):
    """Masks beside the second source's images are not images, and not used. Windows are for the evaluation too."""
    windows, real = [], segment_run.probabilities
    for module in (segment_run, segmentation):  # pictures and metrics
        monkeypatch.setattr(
            module,
            "probabilities",
            lambda model, x, window=None, *more: windows.append(window) or real(model, x, window, *more),
        )
    run = finetune(
        **SEGMENT,
        dataset=str(masked),
        unlabeled_dataset=str(masked),
        method="fixmatch",
        window=18,
        output_dir=str(tmp_path),
    )
    assert len(windows) > 3 and set(windows) == {(18, 18)}
    assert len(run.recorder.pools["training"]) == 18 - 3 + 18 and len(run.recorder.pools["labeled"]) == 4


