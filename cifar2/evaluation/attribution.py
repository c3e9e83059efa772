"""The regions of an image that a prediction rests on."""

from concurrent.futures import ThreadPoolExecutor

import torch
from captum.attr import Occlusion
from torch import Tensor, nn

# Windows at a time: upscaled images are large, and four fit in cache.
BATCH = 4


def occlusion(classifier: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """How much the log-odds of a class fall when the region around each pixel is hidden, float32, N x H x W.

    A square window, a quarter of the image high and wide, moves over the image in steps of an eighth and hides what is
    below it by the mean colour of the image.  The value of a pixel is the mean over the windows that contain it.
    (Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014, section 4.2.)

    The log-odds log(p / (1 - p)) are the logit of the class against those of all others.  The logit alone may fall
    together with all others, which changes no probability; the probability hardly moves near 1.  The mean colour of the
    image needs no other data, and keeps the brightness of the image.

    A map describes this classifier's output, not the object: an image with a hidden region is unlike those that the
    classifier was trained on, and evidence that two regions share is missed, as each compensates for the other.  Some
    methods give similar maps for trained and for random weights (Adebayo et al., "Sanity checks for saliency maps",
    2018); the tests check that this one does not.

    All of it is the work of one thread, so the results do not depend on the number of threads.

    Args:
        classifier: uint8 images, N x 3 x H x W, to logits, N x classes, in evaluation mode; an ``ImageClassifier``.
        images: uint8, N x 3 x H x W.
        targets: the class of each image, int64, N.
    """

    def log_odds(batch: Tensor, classes: Tensor) -> Tensor:
        logits: Tensor = classifier(batch)
        own = torch.zeros_like(logits, dtype=torch.bool).scatter(1, classes.view(-1, 1), value=True)
        return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)

    def map_of(image: Tensor, target: Tensor) -> Tensor:
        height, width = image.shape[2:]
        falls: Tensor = Occlusion(log_odds).attribute(
            image,
            sliding_window_shapes=(3, max(1, height // 4), max(1, width // 4)),
            strides=(3, max(1, height // 8), max(1, width // 8)),
            baselines=image.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(image),
            additional_forward_args=target,
            perturbations_per_eval=BATCH,
        )
        return falls[:, 0].float()  # the same for each channel

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat([*pool.map(map_of, torch.split(images, 1), torch.split(targets, 1))])
