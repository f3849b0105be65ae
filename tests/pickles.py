"""A pickle that opens a file for writing when it is read: what must never happen."""


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
