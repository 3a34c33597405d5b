"""`make edit` starts JupyterLab with this: saving a chapter changes its files only where a cell was changed."""

from book.pairs import KeepingManager

c = get_config()  # noqa: F821 (Jupyter defines it)
c.ServerApp.contents_manager_class = KeepingManager
