def write_page(lines, page):
    raise NotImplementedError
