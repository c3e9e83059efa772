"""Write the page of `dvc plots show` and `dvc plots diff`: ``make plots-page``.

DVC's own page loads Vega from the internet; this one contains it, so that charts work offline. It is committed because
``.dvc/config`` (``plots.html_template``) names it for every clone and experiment.
"""

import argparse
from pathlib import Path

import vl_convert

PAGE = Path(".dvc/plots/page.html")
# DVC replaces the names in braces.
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
<style>
body { font-family: system-ui, sans-serif; }
img { max-width: 100%; }
</style>
<script>VEGA</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def page() -> str:
    """The page with the installed version of Vega, Vega-Lite and Vega-Embed."""
    vega = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    return TEMPLATE.replace("VEGA", vega)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
