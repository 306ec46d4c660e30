# A thin alias for ./run, for fingers that type make.  The build itself is CMake's.
.PHONY: demo test bench ci
demo test bench ci:
	@./run $@
