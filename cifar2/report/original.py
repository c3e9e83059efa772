"""What the original report states about its own results: one run, on CIFAR-10's airplanes and birds."""

from cifar2.evaluation.uncertainty import wilson_interval

CLASSES = {"airplane", "bird"}
# The configuration that it chose, and the accuracies of its one run.
CHOSEN = "fine"
TRAIN_ACCURACY, VAL_ACCURACY = 0.95, 0.85
# Correct predictions of each class, of 1,000 test images each.
CORRECT, N_TEST = (846, 850), 2000
TEST_ACCURACY = sum(CORRECT) / N_TEST


def interval() -> list[float]:
    """Wilson's 95 % interval of its test accuracy, which it does not give but which follows from its counts."""
    return wilson_interval(sum(CORRECT), N_TEST)
