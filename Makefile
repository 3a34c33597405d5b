# The book's commands. Each works in a clean clone: what it needs is installed into .venv first.

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python)
VENV ?= .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
CHAPTERS = $(wildcard book/[0-9][0-9]_*.ipynb)
# Two processes, one for each core of a laptop; a notebook's cells stay together in one kernel.
# Quick scale whatever the shell says, and no progress bars: they print times, which never repeat.
PYTEST := GANKIT_SCALE=quick TQDM_DISABLE=1 $(PY) -m pytest -n 2 --dist loadscope

.PHONY: help book site test test-full times lint check chapter lab edit
.PHONY: course assignments release collect grade feedback slides pdf
.DEFAULT_GOAL := help

help: ## show these lines
	@grep -E '^[a-z -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):.*## /  make \1|/' | \
		while IFS='|' read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

book: $(INSTALLED) ## run the chapters that changed and build the site from that; changes no committed file
	@$(PY) book/build.py execute
	@$(PY) book/build.py site --executed

site: $(INSTALLED) ## build the site from the stored outputs, without running a chapter: about a minute
	@$(PY) book/build.py site

test: lint check ## lint, pair check, unit tests and every chapter with nbval; prints the chapters' times
	$(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout 600 tests $(CHAPTERS)
	@$(PY) book/build.py times

test-full: lint check ## the same, with the slow tests marked `full`
	$(PYTEST) -m "" --nbval-lax --nbval-current-env --nbval-cell-timeout 600 tests $(CHAPTERS)
	@$(PY) book/build.py times

times: $(INSTALLED) ## run each chapter alone and hold its time against its card: make times, make times N=01
	@$(PY) book/build.py strict-times $(N)

lint: $(INSTALLED) ## ruff: style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

check: $(INSTALLED) ## check that notebooks agree with their texts and chapters have their furniture
	@$(PY) book/build.py check

chapter: $(INSTALLED) ## for authors: run one chapter, write its notebook, check it: make chapter N=01
	@test -n "$(N)" || { echo "Which one? For example: make chapter N=01"; exit 1; }
	@$(PY) book/build.py chapter $(N)
	@$(PY) book/build.py check $(N)

lab: $(INSTALLED) ## open a working copy of the chapters, work/, in JupyterLab: change what you like there
	@$(PY) book/build.py copy
	$(PY) -m jupyter lab work

edit: $(INSTALLED) ## for authors: open the chapters themselves in JupyterLab
	$(PY) -m jupyter lab book --config=book/jupyter_server_config.py

# The course kit: course/course.toml says what is taught. A=05 names an assignment, N=04 a chapter.
COURSE := $(PY) -m course
GRADING := $(VENV)/grading

course: $(INSTALLED) ## the students' notebooks of the chosen chapters, into course/work/chapters
	@$(COURSE) course

assignments: $(INSTALLED) ## grade the right, empty and wrong answers of all assignments
	@$(COURSE) assignments

release feedback: $(GRADING) ## students' notebook of an assignment; pages for students: make release A=05
	@test -n "$(A)" || { echo "Which one? For example: make $@ A=05"; exit 1; }
	@$(COURSE) $@ $(A)

collect: $(GRADING) ## read what was handed in: make collect A=05 FROM=moodle.zip
	@test -n "$(A)" -a -n "$(FROM)" || { echo "Which, from where? For example: make collect A=05 FROM=moodle.zip"; exit 1; }
	@$(COURSE) collect $(A) "$(FROM)"

grade: $(GRADING) ## grade what was collected: make grade A=05
	@test -n "$(A)" || { echo "Which one? For example: make grade A=05"; exit 1; }
	@$(COURSE) grade $(A)

slides pdf: $(INSTALLED) ## a chapter's page as slides or on paper, after make book: make slides N=04
	@test -n "$(N)" || { echo "Which one? For example: make $@ N=04"; exit 1; }
	@$(COURSE) $@ $(N)

$(GRADING): $(INSTALLED)
	$(PY) -m pip install --quiet --editable '.[course]' --constraint constraints.txt
	@touch $@

# An install is as good as the two files it was made from.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] \
		+ ". Name another: make PYTHON=/path/to/python" if sys.version_info < (3, 11) else 0)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable '.[book,test]' --constraint constraints.txt
	@touch $@
