"""The page: its data, and its behaviour in a real browser."""

from __future__ import annotations

import base64
import json
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import tiny_config
from pycocotools import mask as mask_codec
from videos import encode

from seqformer import SeqFormer
from seqformer.cli import predict
from seqformer.errors import InputError
from seqformer.inference import ClipTracer, VideoPredictor
from seqformer.inference.tracing import trace
from seqformer.page.data import fit_points, mask_outline
from seqformer.page.write import check_page, page_size, write_page
from seqformer.structures import Tracklet, VideoResult
from seqformer.video import FrameTime, VideoReader, VideoWriter
from seqformer.visualization import instance_color

T, HEIGHT, WIDTH = 12, 96, 128
STARTS = [Fraction(n, 10) for n in (0, 1, 2, 3, 8, 9, 10, 11, 12, 25, 26, 27)]  # seconds, with two pauses
TIMES = [FrameTime(start, Fraction(1, 10)) for start in STARTS]
GREY = 16  # difference in brightness of consecutive frames


def frames() -> list[np.ndarray]:
    """Grey frames whose brightness encodes the frame number."""
    return [np.full((HEIGHT, WIDTH, 3), 30 + GREY * t, dtype=np.uint8) for t in range(T)]


def predictor(folder: Path, **seqformer: object) -> VideoPredictor:
    """A small model with random weights whose points and attention weights differ, as after training."""
    torch.manual_seed(0)
    cfg = tiny_config(NUM_CLASSES=2, NUM_OBJECT_QUERIES=20, **seqformer)
    cfg.INPUT.MIN_SIZE_TEST = 64
    model = SeqFormer(cfg)
    for name, parameter in model.network.detr.named_parameters():
        if any(part in name for part in ("sampling_offsets", "attention_weights", "bbox_embed", "time_att")):
            torch.nn.init.normal_(parameter, std=0.3)
    for head in model.network.detr.class_embed:
        torch.nn.init.constant_(head.bias, -1.0)
    cfg.MODEL.WEIGHTS = str(folder / "model.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return VideoPredictor(cfg)


def square(left: int) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[40:80, left : left + 20] = 1
    rle = mask_codec.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoPredictor, ClipTracer, list[int]]:
    """A video tracked by clips, and the instances that are traced in all or most frames."""
    made = predictor(tmp_path_factory.mktemp("model"), CLIP_MATCHING=True, CLIP_LENGTH=4, CLIP_STRIDE=1)
    with ClipTracer(made.network, points=24) as tracer:
        made(frames(), observer=tracer)
    counts = {i: sum(i in frame for frame in tracer.frames) for frame in tracer.frames for i in frame}
    return made, tracer, sorted(counts, key=lambda i: (-counts[i], i))


@pytest.fixture(scope="module")
def page(traced: tuple[VideoPredictor, ClipTracer, list[int]], tmp_path_factory) -> Path:
    """Three instances with known masks: in all frames, in the first five, and with a low score."""
    _, tracer, ids = traced
    first = [square(40) if t < 5 else None for t in range(T)]
    tracklets = [
        Tracklet(ids[0], 0, 0.9, [square(10)] * T),
        Tracklet(ids[1], 1, 0.7, first),
        Tracklet(ids[2], 0, 0.3, [square(80)] * T),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(
        path,
        frames(),
        VideoResult(HEIGHT, WIDTH, T, tracklets),
        tracklets,
        tracer,
        ["cat", "</script><b>dog"],
        title="A <video>",
        times=TIMES,
        threshold=0.4,
    )
    return path


def test_frames_are_traced_in_the_clip_whose_middle_is_nearest(traced) -> None:
    made, tracer, _ = traced
    assert len(tracer.frames) == T
    for t, instances in enumerate(tracer.frames):
        expected = min(max(t - 2, 0), T - 4)
        assert any(abs(instance.clip.start - expected) <= 1 for instance in instances.values())
        for instance in instances.values():
            start = instance.clip.start
            assert start <= t < start + 4
            np.testing.assert_allclose(instance.clip.weights.sum(1), 1, atol=1e-5)
            assert (np.diff(instance.points[..., 2]) <= 0).all(), "highest weights first"
            assert (instance.kept > 0).all() and (instance.kept <= 1 + 1e-5).all()


def test_trace_of_a_clip_equals_trace_of_its_frames(traced) -> None:
    made, tracer, _ = traced
    clip = made.trace(frames()[3:7], with_masks=False)
    found = 0
    for instance in tracer.frames[5].values():
        if instance.clip.start != 3:
            continue
        distances = [np.abs(clip.boxes[:, 2, q] - instance.boxes).max() for q in clip.queries]
        query = clip.queries[int(np.argmin(distances))]
        np.testing.assert_allclose(instance.boxes, clip.boxes[:, 2, query], atol=1e-4)
        np.testing.assert_allclose(instance.clip.weights, clip.temporal_weights[:, :, query], atol=1e-4)
        weights = np.sort(clip.attention_weights[:, 2, query].reshape(3, -1))[:, ::-1][:, :24]
        np.testing.assert_allclose(instance.points[..., 2], weights, atol=1e-4)
        found += 1
    assert found


def test_tracing_does_not_change_results_or_leave_hooks(tmp_path) -> None:
    made = predictor(tmp_path, CLIP_MATCHING=True, CLIP_LENGTH=4)
    before = made(frames()[:6])
    with ClipTracer(made.network) as tracer:
        during = made(frames()[:6], observer=tracer)
    assert before == during and before.tracklets
    assert not any(module._forward_hooks for module in made.model.modules())


def test_a_whole_video_is_one_clip(tmp_path) -> None:
    made = predictor(tmp_path)
    with ClipTracer(made.network, points=64) as tracer:
        made(frames()[:5], observer=tracer)
    whole = trace(
        made.network, made.options, [made.stream().prepare(frame) for frame in frames()[:5]], with_masks=False
    )
    shares = np.stack([tracer.shares(t)[0] for t in range(5)], axis=1)
    np.testing.assert_allclose(shares, 5 * whole.temporal_weights[:, :, whole.queries[0]], atol=1e-4)


def test_outlines_cover_the_mask_and_keep_holes() -> None:
    mask = np.zeros((60, 80), np.uint8)
    cv2.circle(mask, (40, 30), 20, 1, -1)
    cv2.circle(mask, (40, 30), 7, 0, -1)
    drawn = np.zeros((120, 160), np.uint8)
    cv2.drawContours(drawn, mask_outline(mask, (60, 80)), -1, 1, -1)
    expected = cv2.resize(mask, (160, 120), interpolation=cv2.INTER_NEAREST)
    overlap = (drawn & expected).sum() / (drawn | expected).sum()
    assert overlap > 0.95
    assert drawn[60, 80] == 0, "the hole"


def test_points_shrink_to_the_budget(traced) -> None:
    _, tracer, ids = traced
    tracklets = [Tracklet(i, 0, 0.5, [None] * T) for i in ids]
    assert fit_points(tracer, tracklets, 10**9) == 64
    assert fit_points(tracer, tracklets, 1) == 8
    places = sum(3 * len(frame) for frame in tracer.frames)
    assert fit_points(tracer, tracklets, 5 * 16 * places) == 16


def test_video_sizes() -> None:
    assert page_size(576, 768) == (576, 768)
    assert page_size(1080, 1920) == (720, 1280)
    assert page_size(97, 131) == (96, 132)


def test_bad_pages(tmp_path) -> None:
    for name, message in (("out.mp4", "name an .html file"), ("out", "name an .html file")):
        with pytest.raises(InputError, match=message):
            check_page(tmp_path / name, 10, clip_matching=True)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"):
        check_page(tmp_path / "folder.html", 10, clip_matching=True)
    with pytest.raises(InputError, match="cannot be written"):
        check_page(tmp_path / "file" / "out.html", 10, clip_matching=True)
    with pytest.raises(InputError, match="1801 frames, but a page can have at most 1800"):
        check_page(tmp_path / "out.html", 1801, clip_matching=True)
    with pytest.raises(InputError, match="without MODEL.SeqFormer.CLIP_MATCHING can have at most 300"):
        check_page(tmp_path / "out.html", 301, clip_matching=False)
    check_page(tmp_path / "out.html", None, clip_matching=False)
    assert not (tmp_path / "out.html").exists()


def test_text_is_escaped(page: Path) -> None:
    content = page.read_text()
    assert "<title>A &lt;video&gt; · SeqFormer</title>" in content
    assert "<b>dog" not in content
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", content)


class Page:
    """A page in a browser."""

    def __init__(self, browser, path: Path):
        self.browser, self.path = browser, path

    def js(self, code: str):
        return self.browser.execute_script(code)

    def open(self, hash: str = "", size: tuple[int, int] = (1280, 900)) -> Page:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.browser.get("about:blank")
        for kind in ("browser", "performance"):
            self.browser.get_log(kind)
        self.browser.get(self.path.as_uri() + hash)
        return self.settled()

    def wait(self, code: str):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 30, 0.05).until(lambda _: self.js(f"return {code}"), code)

    def settled(self) -> Page:
        """Waits until the requested frame is drawn."""
        self.wait("stage.dataset.frame !== undefined && Number(stage.dataset.frame) === state.frame")
        return self

    def press(self, *keys: str) -> Page:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()
        return self.settled()

    def click(self, selector: str) -> Page:
        self.browser.find_element("css selector", selector).click()
        return self.settled()

    def slide(self, name: str, value: float) -> Page:
        self.js(f"$('{name}').value = {value}; $('{name}').dispatchEvent(new Event('input'))")
        return self.settled()

    @property
    def frame(self) -> int:
        return self.js("return state.frame")

    def pixel(self, x: float, y: float) -> np.ndarray:
        """RGB of the stage at a position in pixels of the video."""
        code = (
            f"const s = stage.width / width, at = [Math.round({x} * s), Math.round({y} * s)];"
            "return [...stage.getContext('2d').getImageData(...at, 1, 1).data]"
        )
        return np.array(self.js(code)[:3])

    def drawn_frame(self) -> int:
        """The frame number, decoded from a pixel that nothing is drawn on."""
        return round((self.pixel(64, 4).mean() - 30) / GREY)

    def rows(self) -> list[str]:
        code = "return rows.filter((r) => !r.row.hidden).map((r) => r.button.getAttribute('aria-label'))"
        return self.js(code)

    def assert_quiet(self) -> None:
        """Checks that the console is empty and that only the file was requested."""
        console = [entry["message"] for entry in self.browser.get_log("browser")]
        # A hint about how the tests read pixels.
        assert [message for message in console if "willReadFrequently" not in message] == []
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
        assert {url.split(":")[0] for url in urls} <= {"file", "blob", "data", "about"}, urls
        assert self.js("return $('problem').hidden")


@pytest.fixture
def opened(browser, page: Path):
    """The freshly loaded page; it must log nothing during the test."""
    opened = Page(browser, page).open()
    yield opened
    opened.assert_quiet()


def test_steps_show_exactly_the_frame(opened: Page) -> None:
    for t in (0, 1, 2, 3):
        assert (opened.frame, opened.drawn_frame()) == (t, t)
        opened.click("#next")
    opened.click("#back")
    assert opened.drawn_frame() == 3
    for t in (11, 0, 7, 6, 8):
        opened.slide("scrub", t)
        assert opened.drawn_frame() == t
    assert opened.js("return $('clock').textContent") == "Frame 8 of 12 · 1.20 s"
    assert opened.js("return $('facts').textContent").startswith("12 frames, 2.8 s")


def test_frames_keep_their_times(page: Path, tmp_path: Path) -> None:
    encoded = re.search(r'id="movie"[^>]*>([^<]+)<', page.read_text("utf-8"))[1]
    (tmp_path / "page.mp4").write_bytes(base64.b64decode(encoded))
    with VideoReader(tmp_path / "page.mp4") as video:
        assert [video.time.start for _ in video] == STARTS


def test_plays_to_the_end(opened: Page) -> None:
    opened.js(
        "window.seen = new Set(); new MutationObserver(() => seen.add(stage.dataset.frame))"
        ".observe(stage, { attributes: true, attributeFilter: ['data-frame'] })"
    )
    # Slowly, since a busy machine draws fewer frames.
    opened.js("$('speed').value = 0.25; $('speed').dispatchEvent(new Event('change'))")
    opened.browser.find_element("css selector", "#play").click()
    opened.wait("video.ended && state.frame === length - 1 && Number(stage.dataset.frame) === length - 1")
    assert opened.js("return seen.size") > 3
    assert opened.drawn_frame() == T - 1
    assert opened.js("return $('play').getAttribute('aria-label')") == "Play"


def test_masks_have_the_instances_colours_where_they_are(opened: Page, traced) -> None:
    _, _, ids = traced
    for t in (0, 9):
        opened.slide("scrub", t)
        grey = 30 + GREY * t
        expected = 0.55 * grey + 0.45 * np.array(instance_color(ids[0]))
        assert np.abs(opened.pixel(20, 60) - expected).max() < 14
        is_second = np.abs(opened.pixel(50, 60) - grey).max() > 20
        assert is_second == (t < 5), "the second is in the first five frames"
        assert np.abs(opened.pixel(90, 60) - grey).max() < 14, "below the threshold"
    opened.click("#masks")
    assert np.abs(opened.pixel(20, 60) - (30 + GREY * 9)).max() < 14


def test_threshold_hides(opened: Page) -> None:
    assert len(opened.rows()) == 2
    opened.slide("threshold", 0.2)
    assert len(opened.rows()) == 3
    assert np.abs(opened.pixel(90, 60) - 30).max() > 20
    opened.slide("threshold", 0.8)
    assert [row.split(", ")[1] for row in opened.rows()] == ["score 0.90"]
    opened.slide("threshold", 1)
    assert opened.rows() == [] and opened.js("return !$('none').hidden")


def test_solo(opened: Page, traced) -> None:
    opened.click("#instances li:nth-child(2) button")
    assert opened.js("return rows.map((r) => r.button.getAttribute('aria-pressed'))") == [
        "false",
        "true",
        "false",
    ]
    opened.js("toggle('points'); toggle('boxes')")
    assert np.abs(opened.pixel(20, 60) - 30).max() < 14, "the first is hidden"
    assert np.abs(opened.pixel(50, 60) - 30).max() > 20
    assert f"#{traced[2][1]}" in opened.js("return $('chosen').textContent")
    opened.click("#all")
    assert np.abs(opened.pixel(20, 60) - 30).max() > 20


def test_every_layer_has_its_own_points(opened: Page) -> None:
    opened.click("#instances li:first-child button")
    opened.js("toggle('masks'); toggle('boxes'); window.picture = () => stage.toDataURL()")
    pictures = []
    for layer in (1, 2, 3):
        opened.slide("layer", layer)
        with_points = opened.js("return picture()")
        opened.js("toggle('points')")
        assert opened.js("return picture()") != with_points
        opened.js("toggle('points')")
        pictures.append(with_points)
    assert len(set(pictures)) == 3
    opened.js("toggle('points'); toggle('boxes')")
    boxes = [opened.slide("layer", layer).js("return picture()") for layer in (1, 2, 3)]
    assert len(set(boxes)) == 3


def test_numbers_of_the_page_agree_with_the_trace(opened: Page, traced) -> None:
    _, tracer, ids = traced
    wanted = tracer.frames[6][ids[0]]
    record = opened.js("return recordOf(0, 6)")
    for layer in (1, 2, 3):
        points = opened.js(
            f"return pointsOf({record}, {layer}).map((p) => [p.x / width, p.y / height, p.weight])"
        )
        expected = wanted.points[layer - 1]
        np.testing.assert_allclose(np.array(points)[:, :2], expected[:, :2].clip(-1, 2), atol=1e-4)
        np.testing.assert_allclose(np.array(points)[:, 2], expected[:, 2], atol=0.01)
        clip = opened.js(f"return clipOf({record}, {layer})")
        assert clip["start"] == wanted.clip.start
        np.testing.assert_allclose(clip["weights"], wanted.clip.weights[layer - 1], atol=1e-4)
        box = opened.js(f"return placeOf({record}, {layer})")
        np.testing.assert_allclose(
            np.array(box) / [WIDTH, HEIGHT, WIDTH, HEIGHT], wanted.boxes[layer - 1], atol=1e-4
        )
        share = opened.js(f"return shareOf(0, 6, {layer})")
        assert share == pytest.approx(tracer.shares(6)[ids[0]][layer - 1], abs=1e-3)


def test_temporal_weights_jump(opened: Page) -> None:
    opened.slide("scrub", 6).click("#instances li:first-child button")
    bars = opened.browser.find_elements("css selector", "#bars button")
    assert len(bars) == 4, "a clip's frames"
    target = int(re.match(r"Frame (\d+)", bars[0].get_attribute("aria-label"))[1])
    assert target != 6
    bars[0].click()
    assert opened.settled().drawn_frame() == target
    opened.click("#heaviest")
    assert opened.frame == opened.js("return Number($('heaviest').dataset.frame)")
    opened.click("#chart")
    assert opened.frame in (5, 6), "the middle"


def test_keyboard(opened: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    assert opened.press(Keys.RIGHT, Keys.RIGHT).drawn_frame() == 2
    assert opened.press(Keys.LEFT).drawn_frame() == 1
    assert opened.press(Keys.END).drawn_frame() == T - 1
    assert opened.press(Keys.HOME).drawn_frame() == 0
    assert opened.press(Keys.DOWN).js("return state.solo") == 0
    assert opened.press(Keys.DOWN).js("return state.solo") == 1
    assert opened.press("[").js("return state.layer") == 2
    assert opened.press("]").js("return state.layer") == 3
    assert opened.press("m").js("return $('masks').checked") is False
    assert opened.press("h").frame == opened.js("return Number($('heaviest').dataset.frame)")
    assert opened.press(Keys.ESCAPE).js("return state.solo") == -1
    before = opened.js("return getComputedStyle(document.body).backgroundColor")
    assert opened.press("d").js("return getComputedStyle(document.body).backgroundColor") != before
    assert opened.press("?").js("return $('shortcuts').open") is True
    opened.press(Keys.ESCAPE)
    opened.js("document.activeElement.blur(); $('scrub').value = 0; go(0)")
    opened.settled().browser.find_element("css selector", "body").send_keys(" ")
    opened.wait("state.frame > 2")


def test_screen_reader_text(opened: Page) -> None:
    opened.click("#next")
    assert opened.js("return $('live').textContent").startswith("Frame 1 of 12. cat #")
    assert opened.js("return $('scrub').getAttribute('aria-valuetext')") == "frame 1, 0.1 seconds"
    unnamed = opened.js(
        "return [...document.querySelectorAll('button, input, select')].filter((e) => "
        "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.id)"
    )
    assert unnamed == []


def test_phone(browser, page: Path) -> None:
    opened = Page(browser, page).open("#frame=2&layer=2&theme=dark", size=(390, 800))
    opened.click("#instances li:first-child button")
    assert opened.js("return document.documentElement.scrollWidth <= innerWidth")
    assert (opened.frame, opened.js("return state.layer")) == (2, 2)
    assert opened.js("return stage.clientWidth") > 300
    opened.assert_quiet()


@pytest.mark.slow
def test_the_shipped_model(browser, repository, tmp_path, capsys) -> None:
    source = tmp_path / "street.mp4"
    video = VideoReader(repository / "demo/assets/street.mp4")
    with video, VideoWriter(source, video.height, video.width, video.fps) as writer:
        for frame in islice(video, 60, 67):
            writer.write(frame)
    html = tmp_path / "page" / "street.html"
    predict.main(["--input", str(source), "--output", str(tmp_path / "out.mp4"), "--html", str(html)])
    assert capsys.readouterr().out.splitlines()[-1] == str(html)
    assert {path.name for path in tmp_path.iterdir()} == {"street.mp4", "out.mp4", "out.json", "page"}
    opened = Page(browser, html).open("#frame=3")
    assert len(opened.rows()) >= 1
    opened.click("#instances li:first-child button")
    assert opened.js("return layers") == 4
    opened.assert_quiet()


def test_invalid_command_lines(tmp_path, capsys) -> None:
    source = str(encode(tmp_path / "in.mp4", 3))
    other = str(encode(tmp_path / "in2.mp4", 3))
    (tmp_path / "file").touch()
    before = {path.name for path in tmp_path.iterdir()}
    for arguments, message in (
        (["--input", source, other, "--html", str(tmp_path / "a.html")], "--html is for one video"),
        (["--input", source, "--html", str(tmp_path / "a.html"), "--streaming"], "needs the whole video"),
        (["--input", source, "--html", str(tmp_path / "a.txt")], "name an .html file"),
        (["--input", source, "--html", str(tmp_path / "file" / "a.html")], "cannot be written"),
    ):
        with pytest.raises(SystemExit) as stop:
            predict.main([*arguments, "--output", str(tmp_path / "out.mp4")])
        lines = capsys.readouterr().err.splitlines()
        errors = [line for line in lines if not line.startswith("note: ")]  # about the shipped model
        assert stop.value.code == 2 and len(errors) == 1 and message in errors[0], lines
        assert {path.name for path in tmp_path.iterdir()} == before
