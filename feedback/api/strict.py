"""Serializers and permission that refuse unknown names. A misspelt name would silently mean its default otherwise."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from rest_framework import permissions, serializers
from rest_framework.request import Request

from feedback.errors import Invalid

if TYPE_CHECKING:  # at run time a cycle: REST framework's views read the settings that name this module
    from rest_framework.views import APIView

MAX_BIGINT = 2**63 - 1  # a larger number is no sequence or id, and PostgreSQL refuses it


class _KnownFields:
    """Mixin that refuses input fields that the serializer does not have."""

    fields: Mapping[str, serializers.Field]

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = [name for name, field in self.fields.items() if not field.read_only]
            refuse_unknown(data, writable)
        return super().to_internal_value(data)  # type: ignore[misc]


class Serializer(_KnownFields, serializers.Serializer):
    """Serializer whose input may have its own fields only."""


class ModelSerializer(_KnownFields, serializers.ModelSerializer):
    """Serializer of a model whose input may have its own fields only."""


def validated(serializer: serializers.BaseSerializer) -> dict[str, Any]:
    """Return the validated input of a serializer. Raises ValidationError."""
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def validated_query(serializer: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    """Return the validated query parameters of a request. Raises ValidationError."""
    return validated(serializer(data=request.query_params.dict()))


class KnownParameters(permissions.BasePermission):
    """Permission that refuses query parameters that the view's OpenAPI description does not have, for every user."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        refuse_unknown(request.query_params, parameters_of(view, str(request.method)))
        return True


class KnownBody(permissions.BasePermission):
    """Permission that refuses a missing body, and a body where none belongs. Neither may silently mean defaults."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        from feedback.api.parsers import JsonParser  # a cycle otherwise, as above

        if request.method in permissions.SAFE_METHODS or JsonParser not in view.parser_classes:
            return True  # files and JSON Lines are checked row by row
        body = request._request.body  # kept: `Idempotency-Key` and the parser read it again
        if _takes_body(view, str(request.method)):
            if not body:
                raise Invalid(_("The request has no body: send a JSON object, {} for the defaults."))
        elif body and request.data:
            if not isinstance(request.data, Mapping):
                raise Invalid(_("This request takes no body: send none, or {}."))
            refuse_unknown(request.data, [])
        return True


def _takes_body(view: "APIView", method: str) -> bool:
    """Return whether an operation has a body, from its OpenAPI description."""
    schema = _schema_of(view, method)
    return schema is not None and method != "DELETE" and schema.get_request_serializer() is not None


def _schema_of(view: "APIView", method: str) -> Any:
    """Return the OpenAPI description of an operation; None if it has none."""
    # `extend_schema` keeps its arguments in this attribute of the handler.
    handler = getattr(view, "get" if method == "HEAD" else method.lower(), None)
    description = getattr(handler, "kwargs", {}).get("schema")
    if description is None:
        return None
    schema: Any = description()
    schema.view, schema.method = view, method
    return schema


def parameters_of(view: "APIView", method: str) -> list[str]:
    """Return the names of a view's query parameters, from its OpenAPI description."""
    from drf_spectacular.utils import OpenApiParameter  # imports the views, which import this module

    schema = _schema_of(view, method)
    if schema is None:
        return []
    names: list[str] = []
    for parameter in schema.get_override_parameters():
        if isinstance(parameter, OpenApiParameter):
            names += [parameter.name] if parameter.location == OpenApiParameter.QUERY else []
        else:
            names += parameter().fields if isinstance(parameter, type) else parameter.fields
    return names


def refuse_unknown(names: Mapping[str, Any], known: list[str]) -> None:
    """Raise a ValidationError that names the first unknown name and the known ones."""
    unknown = next((name for name in names if name not in known), None)
    if unknown is None:
        return
    if not known:
        raise serializers.ValidationError({str(unknown): _("Unknown name: this request takes no parameters.")})
    raise serializers.ValidationError(
        {str(unknown): _("Unknown name: the known names are %(known)s.") % {"known": ", ".join(known)}}
    )
