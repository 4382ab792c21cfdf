"""Filled by the feedback app."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
