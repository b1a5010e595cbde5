"""A page in the browser to ask a model about a video; :mod:`vcr1.webpage.page` alone knows Gradio."""

from vcr1.webpage.files import Files
from vcr1.webpage.form import Form, Rules, question_of
from vcr1.webpage.guard import Guard, is_loopback

__all__ = ["Files", "Form", "Guard", "Rules", "is_loopback", "question_of"]
