"""Handlers whose failures reach people as a sentence, never as a traceback."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from rmd.checks import Cancelled, RequestError
from rmd.serve import sentences

log = logging.getLogger("rmd.ui")


def sentence(error: Exception, html: bool) -> gr.Error:
    """The error a visitor sees. html: the page renders messages as HTML, the API gives them as sentences."""
    if isinstance(error, Cancelled):
        message = sentences.STOPPED
    elif isinstance(error, RequestError):
        message = str(error)
    else:
        log.error("a handler failed", exc_info=error)
        message = sentences.UNEXPECTED
    title = "Stopped" if isinstance(error, Cancelled) else sentences.FAILED
    return gr.Error(escape(message) if html else message, title=title, print_exception=False)


def in_words(function: Callable[..., Any], html: bool = True) -> Callable[..., Any]:
    """The handler with every failure turned into `gr.Error`; works for functions and generators."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except gr.Error:
                raise
            except Exception as error:
                raise sentence(error, html) from None

        return stream

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise sentence(error, html) from None

    return call
