def help_page(verb): return "x"
