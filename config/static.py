"""Static files: which are collected, and their names with a hash of their content."""

from django.contrib.staticfiles.apps import StaticFilesConfig
from whitenoise.storage import CompressedManifestStaticFilesStorage


class Assets(StaticFilesConfig):
    """Django's static files without the files of packages that no page loads."""

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
    """Storage with hashed names, which also replaces names in `import` statements of JavaScript modules."""

    support_js_module_import_aggregation = True
