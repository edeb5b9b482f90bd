"""A single HTML file to explore a video: its frames, its instances, and what the decoder attends to."""

from seqformer.page.write import check_page, page_size, read_page_origin, write_page

__all__ = ["check_page", "page_size", "read_page_origin", "write_page"]
