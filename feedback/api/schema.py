"""Parts of the OpenAPI description that no view declares: errors, conditional requests, required bodies."""

from typing import Any

from feedback.problems import MEDIA_TYPE, PAGE

PROBLEM = {
    "type": "object",
    "description": f"An error (RFC 9457). `{PAGE}` lists the codes.",
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Address that describes the code."},
        "title": {"type": "string"},
        "status": {"type": "integer", "description": "The HTTP status."},
        "code": {"type": "string", "description": "Stable name of the kind of error."},
        "detail": {"type": "string", "description": "A sentence: what is wrong, and what to do."},
        "message": {"type": "string", "deprecated": True, "description": "As `detail`."},
        "fields": {"description": "Sentences by field, if fields are wrong."},
        "errors": {"type": "array", "items": {"type": "object"}, "description": "Errors by line, if rows were sent."},
    },
    "required": ["type", "title", "status", "code", "detail", "message"],
}
ERROR = {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "A request with the same key within a week is executed once, and gets the same response.",
}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "ETag of the GET: 412 if it would answer something else now.",
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "ETag that the client has: 304 while nothing has changed.",
}
OF_METHODS = {
    "get": IF_NONE_MATCH,
    "post": IDEMPOTENCY_KEY,
    "put": IF_MATCH,
    "patch": IF_MATCH,
    "delete": IF_MATCH,
}


def complete(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Add to each operation its errors, its conditional header and whether its body is required (it always is)."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    for operations in result["paths"].values():
        for method, operation in operations.items():
            operation.setdefault("parameters", []).append(OF_METHODS[method])
            operation["responses"] |= {
                "4XX": ERROR | {"description": "The request is refused."},
                "5XX": ERROR | {"description": "The server failed, or its database does not answer."},
            }
            if method == "get":
                operation["responses"]["304"] = {"description": "Not changed since If-None-Match."}
            if "requestBody" in operation:
                operation["requestBody"]["required"] = True
    return result
