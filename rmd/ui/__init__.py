"""The web demo. Only this package and app.py import gradio."""
