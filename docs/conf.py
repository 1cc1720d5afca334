"""Sphinx's settings for the site; ``make site`` builds it. Nothing here loads anything from another host."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gradlab import __version__
from scripts.site.extension import linkcode

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("0[0-8]*.ipynb"))

project = "gradlab"
author = "The gradlab authors"
copyright = author
version = release = __version__
one_sentence = "See, test and settle what a preference loss really does to a policy."
shown = os.environ.get("GRADLAB_SITE_SHOWN", "").split()

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.linkcode", "scripts.site.extension"]
exclude_patterns = ["README.md"]  # its sections stand on the pages that include them
linkcode_resolve = linkcode

# Text: headings have GitHub's anchors, and notebooks are shown with the outputs that are in git.
myst_enable_extensions = ["dollarmath", "attrs_block"]
myst_heading_anchors = 4
myst_url_schemes = {"http": None, "https": None, "mailto": None, "source": None}
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True

# Mathematics is MathML, which needs no script.
html_math_renderer = "mathml"
myst_update_mathjax = False

autodoc_typehints = "signature"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}  # and not all that it stands for
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "gradlab"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_js_files = ["versions.js", "site.js"]
html_show_copyright = False
html_copy_source = True
html_show_sourcelink = True
html_theme_options = {
    "logo": {"text": "gradlab"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "navbar_end": ["version-menu", "theme-switcher"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "use_edit_page_button": False,
    "secondary_sidebar_items": {
        "**": ["page-toc", "sourcelink"],
        **{f"notebooks/{path.stem}": [] for path in NOTEBOOKS},  # no sections: pictures take the place
    },
    "footer_start": ["version"],
    "footer_end": [],
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
