# SPDX-License-Identifier: Apache-2.0
# One line per target; the work is in `python -m …`. `make` alone lists the targets.
VENV         ?= .venv
VENV_CURRENT ?= .venv-current
PY           := $(VENV)/bin/python
PY_CURRENT   := $(VENV_CURRENT)/bin/python
STAMP        := $(VENV)/.stamp
STAMP_CURRENT:= $(VENV_CURRENT)/.stamp
VENV_INTEL   ?= .venv-intel
STAMP_INTEL  := $(VENV_INTEL)/.stamp
VENV_ATC     ?= .venv-atc
STAMP_ATC    := $(VENV_ATC)/.stamp
VENV_TF2     ?= .venv-tf2
STAMP_TF2    := $(VENV_TF2)/.stamp

# Variables of the stages. OUT is the output folder of whichever stage is asked for.
DATA         ?=
ATLAS        ?=
# Weights of one's own training first, else those that come with the source.
CKPT         ?= $(if $(wildcard build/train/*.index),build/train,models/$(VARIANT))
VARIANT      ?= vm2
SHAPE        ?= 160,192,224
BATCH        ?= 1
EPOCHS       ?= 50
TF           ?=
PRECISION    ?= balanced
SOC          ?= Ascend910A
INPUT        ?=
INIT         ?=
CHECKPOINTS  ?=
MODEL        ?= build/vxm/vxm.om
COMPARE      ?= 1
OUT          ?=
SHORT        ?=
TESTS        ?= tests
JOBS         ?= 3

# In a recipe that make -n must not run.
AGAIN := $(MAKE)
# Compiled tests start in a third of the time; they stay beside the sources, as __pycache__.
test test-all test-current: export PYTHONDONTWRITEBYTECODE =
# Whole runs leave to one Python what cannot differ between two; files that are named run on both.
whole = $(if $(filter tests,$(TESTS)),-m "not slow and not $(1)")
need = $(if $($(1)),,$(error $(1) is not set; for example: make $@ $(1)=$(2)))

.DEFAULT_GOAL := help
.PHONY: help setup setup-atc setup-intel setup-tf demo test test-all test-current lint train export-om register bench precision-table finetune-table shapes-table intensity-table box-table numerics doctor device-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## the Python 3.7 environment, from requirements/py37.lock

$(STAMP): requirements/py37.lock scripts/setup.sh scripts/find_python.sh
	scripts/setup.sh 3.7 $(VENV)

$(STAMP_CURRENT): requirements/current.lock scripts/setup.sh scripts/find_python.sh
	scripts/setup.sh current $(VENV_CURRENT)

setup-atc: $(STAMP_ATC) ## a Python 3.7 for ATC's operator compiler, with the packages that CANN wants; put it first on PATH

$(STAMP_ATC): requirements/atc.lock scripts/find_python.sh
	"$$(scripts/find_python.sh 3.7)" -m venv $(VENV_ATC)
	$(VENV_ATC)/bin/pip install -q pip==24.0
	$(VENV_ATC)/bin/pip install -q --no-deps -r requirements/atc.lock
	$(VENV_ATC)/bin/pip check
	touch $@

setup-intel: $(STAMP_INTEL) ## a second Python 3.7 environment with intel-tensorflow 1.15.2, for training (make train TF=intel)

$(STAMP_INTEL): requirements/py37.lock scripts/find_python.sh
	"$$(scripts/find_python.sh 3.7)" -m venv $(VENV_INTEL)
	$(VENV_INTEL)/bin/pip install -q pip==24.0
	grep -v '^tensorflow==' requirements/py37.lock > $(VENV_INTEL)/intel.lock
	$(VENV_INTEL)/bin/pip install -q --no-deps -r $(VENV_INTEL)/intel.lock intel-tensorflow==1.15.2
	touch $@

setup-tf: $(STAMP_TF2) ## a Python 3.11 environment with TensorFlow 2.15, for training (make train TF=2): its CPU kernels are faster

$(STAMP_TF2): requirements/tf2.lock scripts/find_python.sh
	"$$(scripts/find_python.sh 3.11)" -m venv $(VENV_TF2)
	$(VENV_TF2)/bin/pip install -q --no-deps -r requirements/tf2.lock
	touch $@

demo: $(STAMP) ## everything once, on scans it makes itself (OUT=build/demo)
	@$(PY) -m scripts.demo --out $(or $(OUT),build/demo)

test: $(STAMP) ## the tests, on Python 3.7 and on a current Python where there is one (TESTS=tests JOBS=3)
	@rm -f build/failed-tests-*.txt; status=0; if scripts/find_python.sh current >/dev/null 2>&1; \
	then $(PY) -m pytest -n $(JOBS) --dist loadfile $(call whole,any_python) $(TESTS) || status=$$?; $(AGAIN) test-current || status=$$?; \
	else $(PY) -m pytest -n $(JOBS) --dist loadfile $(TESTS) || status=$$?; \
	echo "no Python 3.11 or newer here: tests ran on 3.7 only"; fi; cat build/failed-tests-*.txt 2>/dev/null; exit $$status

test-all: $(STAMP) ## the slow tests too
	$(PY) -m pytest -n $(JOBS) --dist loadfile -m "" $(TESTS)

test-current: $(STAMP_CURRENT) ## the tests that need no TensorFlow, on Python 3.11 or newer
	$(PY_CURRENT) -m pytest -n $(JOBS) --dist loadfile $(call whole,python37) $(TESTS)

lint: $(STAMP) ## ruff's rules and format, mypy's types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

TRAIN_PY = $(if $(filter intel,$(TF)),$(VENV_INTEL)/bin/python,$(if $(filter 2,$(TF)),VXM_TENSORFLOW=2 $(VENV_TF2)/bin/python,$(PY)))

train: $(STAMP) $(if $(filter intel,$(TF)),$(STAMP_INTEL)) $(if $(filter 2,$(TF)),$(STAMP_TF2)) $(if $(DATA),,build/cohort/atlas.npz) ## DATA= ATLAS= VARIANT= BATCH= EPOCHS= TF=intel|2 OUT=build/train; without DATA on a synthetic cohort
	$(if $(DATA),$(call need,ATLAS,/my/atlas.npz))$(TRAIN_PY) -m train --data $(or $(DATA),build/cohort/scans) --atlas $(or $(ATLAS),build/cohort/atlas.npz) --variant $(VARIANT) --batch $(BATCH) --epochs $(EPOCHS) --out $(or $(OUT),build/train)

build/cohort/atlas.npz: | $(STAMP)
	$(PY) -m vxm_convert phantom --out build/cohort

export-om: $(STAMP) ## CKPT=build/train, else models/ VARIANT= SHAPE= BATCH= PRECISION= SOC= OUT=build/vxm
	@echo "weights: $(CKPT)"
	$(PY) -m export --checkpoint $(CKPT) --variant $(VARIANT) --shape $(SHAPE) --batch $(BATCH) --precision $(PRECISION) --soc-version $(SOC) --out $(or $(OUT),build/vxm)

register: $(STAMP) ## INPUT= ATLAS= MODEL=build/vxm/vxm.om COMPARE=1 OUT=build/registered
	$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)$(PY) -m om_runner --input $(INPUT) --atlas $(ATLAS) --model $(MODEL) --compare $(COMPARE) --out $(or $(OUT),build/registered)

bench: $(STAMP) ## every engine side by side: registration, training step, cohort, scaling, export, files (MODEL= SHAPE= VARIANT= OUT=build/bench)
	@$(PY) -m scripts.benchmark $(if $(filter-out file,$(origin MODEL)),--model $(MODEL)) --variant $(VARIANT) --shape $(SHAPE) --out $(or $(OUT),build/bench)

precision-table: $(STAMP) ## the errors of every plan, CHECKPOINTS= INPUT= ATLAS= VARIANT= SHAPE= OUT=build/precision_table
	$(call need,CHECKPOINTS,/my/model.h5)$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)@$(PY) -m scripts.precision_table --checkpoints $(CHECKPOINTS) --input $(INPUT) --atlas $(ATLAS) --variant $(VARIANT) --shape $(SHAPE) --out $(or $(OUT),build/precision_table)

finetune-table: $(STAMP) ## what fine-tuning buys, INIT= INPUT= ATLAS= VARIANT= SHAPE= OUT=build/finetune_table
	$(call need,INIT,/my/checkpoint)$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)@$(PY) -m scripts.training_tables finetune --init $(INIT) --input $(INPUT) --atlas $(ATLAS) --variant $(VARIANT) --shape $(SHAPE) $(if $(OUT),--out $(OUT))

shapes-table: $(STAMP) ## how a network registers that saw random shapes only, INPUT= ATLAS= VARIANT= SHAPE= OUT=build/shapes_table
	$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)@$(PY) -m scripts.training_tables shapes --input $(INPUT) --atlas $(ATLAS) --variant $(VARIANT) --shape $(SHAPE) $(if $(OUT),--out $(OUT))

intensity-table: $(STAMP) ## what each rule of --intensity keeps of the gain, INPUT= ATLAS= MODEL= OUT=build/intensity_table
	$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)@$(PY) -m scripts.intensity_table --input $(INPUT) --atlas $(ATLAS) --model $(MODEL) $(if $(OUT),--out $(OUT))

box-table: $(STAMP) ## weights beside each other and under other contrasts, INPUT= ATLAS= CHECKPOINTS="name=file ..." SHAPE= OUT=build/box_table
	$(call need,INPUT,/my/scans)$(call need,ATLAS,/my/atlas.npz)@$(PY) -m scripts.box_table --input $(INPUT) --atlas $(ATLAS) --checkpoints $(or $(CHECKPOINTS),box=models/vm2) --shape $(SHAPE) $(if $(OUT),--out $(OUT))

numerics: $(STAMP) ## errors of every plan on fixed phantoms against tests/numerics.yaml; worse fails
	@$(PY) -m scripts.numerics

doctor: $(STAMP) ## what is installed, what is missing, what to do
	@$(PY) -m vxm_convert doctor

device-check: $(STAMP) ## the device, or the simulator, against the simulator's predictions (SHORT=1 OUT=build/device-check)
	@$(PY) -m vxm_convert device-check $(if $(SHORT),--short) --out $(or $(OUT),build/device-check)

clean: ## remove results and caches; the environments stay
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache *.egg-info kernel_meta fusion_result.json
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
