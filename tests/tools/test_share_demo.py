from tests.clone import run
from tools import share_demo

CONFIG = """\
[core]
    autostage = true
    remote = team
['remote "team"']
    url = ../elsewhere
    verify = true
"""


def test_the_demo_starts_without_the_repositorys_remotes(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "a"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text(CONFIG)
    for command in ("init", "add .", "commit -m team", "tag main", "checkout --detach"):
        run(root, "git", *command.split())
    share_demo.clone(root, folder)
    assert (folder / ".dvc/config").read_text() == "[core]\n    autostage = true\n"
    assert run(folder, "git", "remote").stdout == ""
    assert run(folder, "git", "branch", "--show-current").stdout == "main\n"
