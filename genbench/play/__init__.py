"""A local page for trained models, made with Gradio."""
