"""Try the trained models on any image, on a page in the browser: ``make demo``.

The page shows the probabilities of the classes, how many test images with a similar confidence were classified
correctly, the most similar training images, and the regions of the image that the prediction rests on.  Of a model
trained with several seeds it uses the first.

Only this machine can open the page, nothing leaves the machine, and the images are deleted when the page stops.
"""

import argparse
import base64
import contextlib
import functools
import html
import io
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from cifar2 import errors, files
from cifar2.dataset import image_file, splits
from cifar2.deploy.cli import FINAL
from cifar2.evaluation.attribution import occlusion
from cifar2.evaluation.uncertainty import wilson_interval
from cifar2.figures.explain import overlay
from cifar2.networks import classifier
from cifar2.networks.image_classifier import ImageClassifier, outputs

if TYPE_CHECKING:
    from gradio import Blocks
    from starlette.middleware.base import RequestResponseEndpoint
    from starlette.requests import Request
    from starlette.responses import Response

TRAIN, TEST = Path("data/prepared/train.safetensors"), Path("data/prepared/test.safetensors")
FEATURES = Path("data/features/train.safetensors")
# Test images to start with: at most so many of each class, and so many in all.
EXAMPLES, ALL_EXAMPLES = 2, 10
NEIGHBOURS = 6
# Test images of similar confidence: fewer would be too few for an interval, more would be less similar.
SIMILAR = 100
# Training images among which the nearest are looked up, evenly spaced, if a network with convolutions must see them.
SEARCHED = 500
# Images at a time.
BATCH = 16
# Held during a computation: if Python ended in the middle of one, PyTorch would abort.
COMPUTING = threading.Lock()
# Gradio's page has inline scripts and styles.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'self'"
)
STYLE = Path(__file__).with_suffix(".css")
# Gradio numbers the images for screen readers; their captions say more.
NAMES = """<script>
new MutationObserver(() => document.querySelectorAll("#examples button[aria-label]").forEach((button) => {
  button.removeAttribute("aria-label");
  button.querySelector("img").alt = "";
})).observe(document, { childList: true, subtree: true });
</script>"""
FONTS = ["system-ui", "sans-serif"]


class Model(NamedTuple):
    """A classifier, its predictions of the test images, and the training images as it represents them."""

    card: classifier.Card
    classifier: ImageClassifier
    confidences: Tensor
    correct: Tensor
    images: Tensor
    labels: Tensor
    features: Tensor


def measured(model: Path, folder: str, suffix: str) -> Path:
    """A file of stage `evaluate` about a model."""
    return Path("extended" if model.parts[0] == "extended" else "", folder, f"{model.stem}{suffix}")


def metrics(model: Path) -> Path:
    """The metrics of a model on the test images."""
    return measured(model, "metrics/evaluate", ".json")


def evaluated() -> list[Path]:
    """The model files that were evaluated, the final one first."""
    models = [path for root in ("", "extended") for path in Path(root).glob("data/models/**/*.safetensors")]
    # A configuration in train/ may have the name of a family, whose selected model is meant.
    by_metrics = {metrics(path): path for path in sorted(models, key=lambda path: -len(path.parts))}
    return sorted((path for measures, path in by_metrics.items() if measures.exists()), key=lambda p: (p != FINAL, p))


@functools.cache
def load(path: Path) -> Model:
    """Read a model, and compute its features of the training images where no stage did.

    Raises:
        UserError: a file is missing or corrupted, or does not fit the model.
    """
    card, networks, _ = classifier.load(path)
    model = ImageClassifier(card, next(iter(networks.values()))).eval()
    tested, _ = files.read_tensors(measured(path, "data/evaluated", ".safetensors"))
    confidences, predicted = torch.softmax(tested["logits"][0].double(), 1).max(1)
    correct = predicted == tested["labels"]
    train = splits.load(TRAIN)
    kept = torch.arange(len(train.labels))
    if card.features:
        split = splits.load(FEATURES)
        if split.features != card.features:
            raise errors.UserError(f"{FEATURES} has other features than {path} was trained on; run `dvc repro`")
        features = split.x
    else:
        if card.convolves:
            kept = torch.linspace(0, len(kept) - 1, min(SEARCHED, len(kept))).long()
        features = torch.cat([outputs(model, batch)[1] for batch in torch.split(train.x[kept], BATCH)])
    return Model(card, model, confidences, correct, train.x[kept], train.labels[kept], normalize(features))


def statement(confidences: Tensor, correct: Tensor, confidence: float) -> str:
    """The accuracy on the test images with the most similar confidence.

    Args:
        confidences: the confidence of the prediction of each test image.
        correct: whether it is correct, bool.
        confidence: that of the prediction to make a statement about.
    """
    similar = (confidences - confidence).abs().topk(min(SIMILAR, len(confidences)), largest=False).indices
    n, n_correct = len(similar), int(correct[similar].sum())
    ends = [confidences[similar].min().item(), confidences[similar].max().item()]
    first, last, accuracy, low, high = (
        f"{100 * fraction:.1f}" for fraction in (*ends, n_correct / n, *wilson_interval(n_correct, n))
    )
    return (
        f"Of the {n} test images with the most similar confidence ({first} to {last} %), {accuracy} % were classified "
        f"correctly (95 % interval {low} to {high} %)."
    )


def nearest(features: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """The cosine similarity and index of the rows of ``features`` (of length 1) that are most similar to ``query``."""
    similarities, indices = (features @ normalize(query, dim=0)).topk(min(NEIGHBOURS, len(features)))
    return similarities, indices


def refusal(error: errors.UserError, path: Path) -> str:
    """The line of `cifar2 predict` about an image, with the file's name instead of its temporary path."""
    return f"error: {error}".replace(str(path), path.name)


def explain(file: str | None, name: str) -> tuple[dict[str, float] | None, str]:
    """The probability of each class, and the rest of the page as HTML.

    Args:
        file: an image file, or None.
        name: one of :func:`evaluated`.
    """
    if file is None:
        return None, ""
    path = Path(file)
    try:
        model = load(Path(name))
        image = image_file.read(path, model.card.image_size)
    except errors.UserError as error:
        return None, f'<p role="alert">{html.escape(refusal(error, path))}</p>'
    logits, features = outputs(model.classifier, image[None])
    probabilities = dict(zip(model.card.classes, torch.softmax(logits[0].double(), 0).tolist(), strict=True))
    confidence, target = torch.softmax(logits.double(), 1).max(1)
    predicted = html.escape(model.card.classes[int(target)])
    (map_,) = occlusion(model.classifier, image[None], target)
    neighbours = "".join(
        figure(model.images[i], f"{html.escape(model.card.classes[int(model.labels[i])])}, {similarity:.2f}")
        for similarity, i in zip(*nearest(model.features, features[0]), strict=True)
    )
    size, low, high = model.card.image_size, max(0.0, -map_.min().item()), max(0.0, map_.max().item())
    return probabilities, (
        f"<p>{statement(model.confidences, model.correct, confidence.item())} Expect this for images like the test "
        "images only.</p>"
        f"<h2>What the prediction rests on</h2><div class='maps'>"
        f"{figure(image, f'the image as the model gets it, {size} x {size} pixels')}"
        f"{figure(overlay(image, map_), f'occlusion map for {predicted}')}</div>"
        f"<p>Red: hiding the region lowers the log-odds of {predicted}, by up to {high:.1f}. Blue: hiding it raises "
        f"them, by up to {low:.1f}. A value is the mean over the squares that hide the place. The map describes the "
        "output of this model. It cannot tell what the object is, or what another model would use, and it misses "
        "evidence that several regions share.</p>"
        f"<h2>Most similar training images</h2><div class='neighbours'>{neighbours}</div>"
        "<p>Label and cosine similarity of the last layer's inputs. "
        f"Searched: {len(model.labels):,} training images.</p>"
    )


def figure(image: Tensor, caption: str) -> str:
    """An image, uint8, 3 x H x W, with its caption, as HTML."""
    png = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(png, "PNG")
    data = base64.b64encode(png.getvalue()).decode()
    return f"<figure><img src='data:image/png;base64,{data}' alt=''><figcaption>{caption}</figcaption></figure>"


def save_examples(folder: Path) -> list[str]:
    """Save the first test images of each class."""
    test = splits.load(TEST)
    counts = test.labels.bincount(minlength=len(test.classes))
    first = [(label, i) for i in range(EXAMPLES) for label in range(len(counts)) if i < counts[label]][:ALL_EXAMPLES]
    paths = []
    for label, i in first:
        paths.append(str(folder / f"{test.classes[label]}{i + 1}.png"))
        Image.fromarray(test.x[test.labels == label][i].permute(1, 2, 0).numpy()).save(paths[-1])
    return paths


def page(examples: Sequence[str]) -> "Blocks":
    """The page, with ``examples`` to click on."""
    import gradio as gr

    models = []
    for path in evaluated():
        of = files.read_json(metrics(path))
        seeds = f", mean of {of['n_seeds']} seeds" if of["n_seeds"] > 1 else ""
        models.append((f"{path.stem} ({of['config']}), test accuracy {of['test_accuracy']:.4f}{seeds}", str(path)))
    blocks = gr.Blocks(title="CIFAR-2")
    with blocks:
        gr.Markdown("# Try the models")
        with gr.Row():
            with gr.Column(scale=2):
                file = gr.Image(examples[0], type="filepath", label="Image", buttons=[], height=300, elem_id="image")
                model = gr.Dropdown(models, value=str(FINAL), label="Model", elem_id="model")
                gallery = gr.Gallery(
                    [(path, Path(path).stem) for path in examples],
                    label="Test images",
                    elem_id="examples",
                    allow_preview=False,
                    buttons=[],
                    interactive=False,
                )
            with gr.Column(scale=3):
                label = gr.Label(label="Class probabilities", num_top_classes=10, elem_id="probabilities")
                text = gr.Markdown(elem_id="explanation", latex_delimiters=[])
        # Gradio would decode and convert the file first; image_file.read does that, as for `cifar2 predict`.
        file.preprocess = lambda uploaded: uploaded and uploaded.path  # type: ignore[assignment, return-value]

        # The gallery, and not the event: Gradio would repeat a postponed event with the data of the one before.
        def choose(images: gr.Gallery) -> str:
            return examples[images.selected_index or 0]

        def show(file: str | None, name: str) -> tuple[dict[str, float] | None, str]:
            with COMPUTING:
                return explain(file, name)

        # Of what is chosen before the server has answered, the last one counts.
        gallery.select(choose, gallery, file, trigger_mode="always_last", api_visibility="private")
        gr.on(
            [blocks.load, file.change, model.change],
            show,
            [file, model],
            [label, text],
            trigger_mode="always_last",
            api_visibility="private",
        )
    return blocks


async def add_policy(request: "Request", call_next: "RequestResponseEndpoint") -> "Response":
    """Let the browser load nothing from other machines."""
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)  # beside other work, the threads of small batches mostly wait for each other
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as folder:
        load(FINAL)
        # Gradio reads them when it is imported.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "no_proxy": "127.0.0.1"}
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware

        blocks = page(save_examples(Path(folder)))
        _, address, _ = blocks.launch(
            share=False,
            server_name="127.0.0.1",
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            run_history=False,
            footer_links=[],
            theme=gr.themes.Base(font=FONTS, font_mono=["monospace"]),
            css_paths=STYLE,
            head=NAMES,
            app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=add_policy)]},
        )
        print(f"open {address} in a browser on this machine; Ctrl-C stops the page", flush=True)
        blocks.block_thread()
        COMPUTING.acquire()


if __name__ == "__main__":
    errors.run(main)
