"""How style sheets and modules are served: named by their content, compressed, and nothing that no page asks for."""

from django.contrib.staticfiles.apps import StaticFilesConfig
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Assets(StaticFilesConfig):
    """Django's static files, without what packages carry beside the one file that a page loads."""

    ignore_patterns = [
        *StaticFilesConfig.ignore_patterns,
        "*.amd.js",
        "*.cjs.js",
        "*.iife*.js",
        "*.d.ts",
        "*.d.ts.map",
        "*.gz",
        "contrib",
        "django_htmx",
        "ext",
        "htmx.js",
        "htmx.esm.js",
        "katex-swap*.css",
        "katex.css",
        "katex.js",
        "katex.min.js",
        "redoc",
        "rest_framework",
    ]


class AssetStorage(CompressedManifestStaticFilesStorage):
    """Also rewrites `import` in our modules to the hashed names."""

    support_js_module_import_aggregation = True
