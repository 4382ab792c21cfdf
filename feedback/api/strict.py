"""Names that the API does not know are refused: a misspelt one would otherwise mean its default, without a word."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from rest_framework import permissions, serializers
from rest_framework.request import Request

if TYPE_CHECKING:  # REST framework's views read the settings that name this module
    from rest_framework.views import APIView


class _KnownFields:
    """Refuses a field that the serializer does not have."""

    fields: Mapping[str, serializers.Field]

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = [name for name, field in self.fields.items() if not field.read_only]
            refuse_unknown(data, writable)
        return super().to_internal_value(data)  # type: ignore[misc]


class Serializer(_KnownFields, serializers.Serializer):
    """A serializer whose input holds nothing but its fields."""


class ModelSerializer(_KnownFields, serializers.ModelSerializer):
    """A model's serializer whose input holds nothing but its fields."""


class KnownParameters(permissions.BasePermission):
    """Refuses a query parameter that the address is not documented to take, whoever asks."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        refuse_unknown(request.query_params, parameters_of(view, str(request.method)))
        return True


def parameters_of(view: "APIView", method: str) -> list[str]:
    """Return the names of a view's query parameters, as its OpenAPI description has them."""
    from drf_spectacular.utils import OpenApiParameter  # imports those views

    # Where `extend_schema` leaves what it was told of a function's method.
    handler = getattr(view, "get" if method == "HEAD" else method.lower(), None)
    described = getattr(handler, "kwargs", {}).get("schema")
    if described is None:
        return []
    schema: Any = described()
    schema.view, schema.method = view, method
    names: list[str] = []
    for parameter in schema.get_override_parameters():
        if isinstance(parameter, OpenApiParameter):
            names += [parameter.name] if parameter.location == OpenApiParameter.QUERY else []
        else:
            names += parameter().fields if isinstance(parameter, type) else parameter.fields
    return names


def refuse_unknown(given: Mapping[str, Any], known: list[str]) -> None:
    """Raise a ValidationError that names the first unknown name, and those that are known."""
    unknown = next((name for name in given if name not in known), None)
    if unknown is None:
        return
    if not known:
        raise serializers.ValidationError({str(unknown): _("Unknown name: this request takes no parameters.")})
    raise serializers.ValidationError(
        {str(unknown): _("Unknown name: the known names are %(known)s.") % {"known": ", ".join(known)}}
    )
