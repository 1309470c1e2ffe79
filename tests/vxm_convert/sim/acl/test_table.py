# SPDX-License-Identifier: Apache-2.0
"""Every function of the interface exists, is listed, parses its arguments as a C binding does, and survives its failure
paths.
"""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from vxm_convert.ascend.acl_codes import CODES
from vxm_convert.sim.acl.base import args

#: The functions an offline program can use, by module; argument letters as in `args.LETTERS` (K pointer, I/i integer, s
#: text …).
INTERFACE = {
    "": """
        init:|z finalize: get_version: get_soc_name: get_recent_err_msg: app_log:Is create_data_buffer:KK destroy_data_buffer:K
        update_data_buffer:KKK get_data_buffer_addr:K get_data_buffer_size:K get_data_buffer_size_v2:K create_tensor_desc:iti
        destroy_tensor_desc:K get_tensor_desc_num_dims:K get_tensor_desc_dim_v2:KK""",
    "rt": """
        set_device:i reset_device:i get_device: get_device_count: get_run_mode: create_context:i destroy_context:K set_context:K
        get_context: create_stream: destroy_stream:K synchronize_stream:K synchronize_stream_with_timeout:Ki stream_query:K
        synchronize_device: malloc:KI malloc_cached:KI malloc_align32:KI malloc_with_cfg:KID free:K malloc_host:K free_host:K
        memset:KKiK memset_async:KKiKK memcpy:KKKKI memcpy_async:KKKKIK get_mem_info:I create_event: destroy_event:K record_event:KK
        synchronize_event:K query_event:K event_elapsed_time:KK stream_wait_event:KK subscribe_report:KK unsubscribe_report:KK
        process_report:i launch_callback:OOIK peek_at_last_error:i get_last_error:i""",
    "mdl": """
        load_from_file:s load_from_mem:KK load_from_file_with_mem:sKKKK load_from_mem_with_mem:KKKKKK query_size:s query_size_from_mem:KK
        create_config_handle: destroy_config_handle:K set_config_opt:KIO load_with_config:K unload:I create_desc: destroy_desc:K get_desc:KI
        get_desc_from_file:Ks get_num_inputs:K get_num_outputs:K get_input_size_by_index:KI get_output_size_by_index:KI get_input_dims:KI
        get_input_dims_v2:KI get_output_dims:KI get_cur_output_dims:KI get_input_name_by_index:KI get_output_name_by_index:KI
        get_input_index_by_name:Ks get_output_index_by_name:Ks get_input_format:KI get_output_format:KI get_input_data_type:KI
        get_output_data_type:KI create_dataset: destroy_dataset:K add_dataset_buffer:KK get_dataset_num_buffers:K get_dataset_buffer:KI
        set_dataset_tensor_desc:KKK get_dataset_tensor_desc:KK execute:IKK execute_async:IKKK get_dynamic_batch:K get_dynamic_hw:Ki
        get_input_dynamic_gear_count:Ki get_input_dynamic_dims:KiK set_dynamic_batch_size:IKKK set_dynamic_hw_size:IKKKK
        set_input_dynamic_dims:IKKd init_dump: set_dump:s finalize_dump:""",
    "media": "dvpp_malloc:K dvpp_free:K",
    "prof": "init:s create_config:tIKK start:K stop:K destroy_config:K finalize:",
    "util": """
        numpy_to_ptr:O numpy_contiguous_to_ptr:O ptr_to_numpy:KtI bytes_to_ptr:O ptr_to_bytes:KK start_thread:O|O stop_thread:K""",
}
ROWS = [
    (f"{module}.{name}" if module else name, letters)
    for module, text in INTERFACE.items()
    for name, letters in (word.split(":") for word in text.split())
]
#: a value that each letter refuses, and one that it takes
WRONG = {"K": 1.5, "I": "1", "i": "1", "s": b"x", "z": 3, "d": 3, "D": 3, "t": 3}
PLAIN = {"K": 0, "I": 0, "i": 0, "s": "none", "z": None, "d": {}, "D": None, "t": [], "O": None}


WITH_ARGUMENTS = [row for row in ROWS if row[1]]
#: What each call answers to `PLAIN` arguments after init: return code → calls that fail with it, …
FAILING = {
    100000: """
        destroy_data_buffer update_data_buffer get_tensor_desc_dim_v2 rt.destroy_stream rt.malloc rt.malloc_cached
        rt.malloc_align32 rt.malloc_with_cfg rt.free media.dvpp_malloc media.dvpp_free rt.malloc_host rt.free_host mdl.destroy_config_handle
        mdl.set_config_opt mdl.load_with_config mdl.destroy_desc mdl.get_desc mdl.get_desc_from_file mdl.get_input_dims
        mdl.get_input_dims_v2 mdl.get_output_dims mdl.get_cur_output_dims mdl.get_input_index_by_name
        mdl.get_output_index_by_name mdl.destroy_dataset mdl.add_dataset_buffer mdl.set_dataset_tensor_desc
        mdl.get_dynamic_batch mdl.get_dynamic_hw mdl.get_input_dynamic_gear_count mdl.get_input_dynamic_dims
        mdl.set_dump mdl.finalize_dump prof.init prof.start prof.stop prof.destroy_config prof.finalize util.stop_thread""",
    100034: "rt.unsubscribe_report",
    107000: """
        rt.destroy_context rt.set_context rt.memset rt.memset_async rt.memcpy rt.process_report""",
    107017: """
        rt.destroy_event rt.record_event rt.synchronize_event rt.query_event rt.event_elapsed_time
        rt.stream_wait_event""",
    145002: "mdl.load_from_file mdl.load_from_file_with_mem mdl.query_size",
    145003: """
        mdl.unload mdl.execute mdl.execute_async mdl.set_dynamic_batch_size mdl.set_dynamic_hw_size
        mdl.set_input_dynamic_dims""",
    145006: "mdl.load_from_mem mdl.load_from_mem_with_mem mdl.query_size_from_mem",
    207000: "rt.memcpy_async",
}
#: … calls that succeed with nothing but their return code, …
SUCCEEDING = """
    finalize rt.set_device rt.reset_device rt.synchronize_stream rt.synchronize_stream_with_timeout
    rt.synchronize_device rt.subscribe_report mdl.init_dump""".split()
#: … with other values before it, …
MEMORY = 32 << 30
GIVING = {
    "get_version": (1, 1, 0),
    "rt.get_device": (0,),
    "rt.get_device_count": (1,),
    "rt.get_run_mode": (1,),
    "rt.stream_query": (0,),
    "rt.get_mem_info": (MEMORY, MEMORY),
}
#: … that give a new handle, with a return code and without one, …
HANDLES = "rt.create_context rt.get_context rt.create_stream rt.create_event".split()
BARE_HANDLES = (
    "create_data_buffer create_tensor_desc mdl.create_config_handle mdl.create_desc mdl.create_dataset"
).split()
#: … that answer with one value and no return code, …
BARE = {
    "get_soc_name": "Ascend910A",
    **dict.fromkeys("get_recent_err_msg app_log destroy_tensor_desc".split()),
    **dict.fromkeys(
        """get_data_buffer_addr get_data_buffer_size get_data_buffer_size_v2 get_tensor_desc_num_dims
        rt.peek_at_last_error rt.get_last_error mdl.get_num_inputs mdl.get_num_outputs mdl.get_input_size_by_index
        mdl.get_output_size_by_index mdl.get_dataset_num_buffers mdl.get_dataset_buffer mdl.get_dataset_tensor_desc
        prof.create_config""".split(),
        0,
    ),
    **dict.fromkeys("mdl.get_input_name_by_index mdl.get_output_name_by_index".split(), ""),
    **dict.fromkeys(
        """mdl.get_input_format mdl.get_output_format mdl.get_input_data_type mdl.get_output_data_type""".split(), -1
    ),
}
#: … and that raise.
RAISING = {
    "init": (TypeError, "acl.init args parse failed"),
    "rt.launch_callback": (TypeError, "acl.rt.launch_callback args parse failed: the first argument must be callable"),
    "util.numpy_to_ptr": (TypeError, "acl.util.numpy_to_ptr args parse failed: expected numpy.ndarray"),
    "util.numpy_contiguous_to_ptr": (TypeError, "acl.util.numpy_contiguous_to_ptr args parse failed: expected numpy"),
    "util.ptr_to_numpy": (ValueError, "acl.util.ptr_to_numpy: 0x0 is not an address in memory"),
    "util.bytes_to_ptr": (ValueError, "acl.util.bytes_to_ptr: expected bytes, got NoneType"),
    "util.ptr_to_bytes": (ValueError, "acl.util.ptr_to_bytes: 0x0 is not an address in memory"),
    "util.start_thread": (TypeError, "acl.util.start_thread args parse failed: the first argument must be callable"),
}
CODE_OF = {name: code for code, names in FAILING.items() for name in names.split()}
#: calls of acl and acl.mdl that ask the device; all of acl.rt do, but the two of the last error, and those of acl.prof
NEED_INIT = """
    load_from_file load_from_mem load_from_file_with_mem load_from_mem_with_mem query_size query_size_from_mem
    load_with_config unload get_desc get_desc_from_file execute execute_async set_dynamic_batch_size
    set_dynamic_hw_size set_input_dynamic_dims init_dump set_dump finalize_dump""".split()


def function(acl, name):
    module, _, short = name.rpartition(".")
    return getattr(getattr(acl, module) if module else acl, short)


def plain(letters):
    return [PLAIN[letter] for letter in letters.partition("|")[0]]


def needs_init(name):
    module, _, short = name.rpartition(".")
    return {
        "media": True,
        "rt": not short.endswith("last_error"),
        "mdl": short in NEED_INIT,
        "prof": "config" not in short,
    }.get(module, name == "finalize")


def answer(name, call, values):
    """Make the call and check what it answers once the process is initialised; every name is in one of the tables."""
    row = args.TABLE[name]
    if name in RAISING:
        kind, words = RAISING[name]
        with pytest.raises(kind, match=re.escape(words)):
            call(*values)
        return
    result = call(*values)
    if name in CODE_OF:
        assert result == ((*row.otherwise, CODE_OF[name]) if row.otherwise else CODE_OF[name])
    elif name in GIVING:
        assert result == (*GIVING[name], 0)
    elif name in HANDLES:
        assert result[0] > 0 and result[1:] == (0,)
    elif name in BARE_HANDLES:
        assert result > 0
    elif name in BARE:
        assert result == BARE[name] and type(result) is type(BARE[name])
    else:
        assert name in SUCCEEDING and result == 0


def test_the_table_is_the_interface():
    assert {row.name: row.letters for row in args.TABLE.values()} == dict(ROWS)


def test_every_call_has_one_expected_answer():
    answers = [*CODE_OF, *SUCCEEDING, *GIVING, *HANDLES, *BARE_HANDLES, *BARE, *RAISING]
    assert sorted(answers) == sorted(dict(ROWS))
    assert set(FAILING) <= set(CODES)


@pytest.mark.parametrize("module", sorted(INTERFACE))
def test_functions_are_listed_and_nothing_else(sim, module):
    owner = getattr(sim.acl, module) if module else sim.acl
    listed = {name for name in dir(owner) if not name.startswith("_")}
    named = {word.split(":")[0] for word in INTERFACE[module].split()}
    assert listed == (named if module else named | {"rt", "mdl", "media", "prof", "util"})
    assert all(inspect.isfunction(getattr(owner, name)) for name in named)


@pytest.mark.parametrize("name, letters", WITH_ARGUMENTS)
def test_wrong_types_and_counts(sim, name, letters):
    call = function(sim.start(), name)
    required = letters.partition("|")[0]
    for place, letter in enumerate(letters.replace("|", "")):
        if letter == "O":
            continue
        values = [PLAIN[one] for one in letters.replace("|", "")[: place + 1]] + plain(required)[place + 1 :]
        values[place] = WRONG[letter]
        with pytest.raises(TypeError, match=f"acl.{name} args parse failed"):
            call(*values)
    with pytest.raises(TypeError, match=f"acl.{name} args parse failed"):
        call(*[0] * (len(letters.replace("|", "")) + 1))
    if required:
        with pytest.raises(TypeError, match=f"acl.{name} args parse failed"):
            call(*plain(required)[:-1])


@pytest.mark.parametrize("name", [name for name, letters in ROWS if not letters])
def test_a_call_without_arguments_ignores_what_it_is_given(sim, name):
    answer(name, function(sim.start(), name), ["x", None, 1.5])


@pytest.mark.parametrize("name, letters", WITH_ARGUMENTS)
def test_numpy_integers_are_no_pointers_but_may_be_numbers(name, letters):
    """What the parser alone decides; the calls themselves are not made."""
    row = args.TABLE[name]
    for place, letter in enumerate(letters.replace("|", "")):
        values = [PLAIN[one] for one in letters.replace("|", "")]
        values[place] = np.int64(1)
        if letter in "IiO":
            assert args.parse(row, tuple(values))[place] == 1
        else:
            with pytest.raises(TypeError, match=f"acl.{name} args parse failed"):
                args.parse(row, tuple(values))


@pytest.mark.parametrize("name, letters", ROWS)
def test_null_arguments_give_codes_of_the_reference_and_no_crash(sim, name, letters):
    """Null pointers, index 0, empty texts: the answer of the table above, and the device is usable afterwards."""
    acl = sim.start()
    answer(name, function(acl, name), [None] * 2 if name == "init" else plain(letters))
    if name != "finalize":
        assert acl.rt.get_device_count() == (1, 0)


@pytest.mark.parametrize("name, letters", ROWS)
def test_before_init_only_bookkeeping_works(sim, name, letters):
    row, call = args.TABLE[name], function(sim.acl, name)
    if needs_init(name):
        assert call(*plain(letters)) == ((*row.otherwise, 100001) if row.otherwise else 100001)
    elif name == "get_soc_name":
        assert call() is None
    elif name == "init":
        assert call() == 0
    else:
        answer(name, call, plain(letters))


def test_an_unknown_type_of_numpy_is_refused(sim):
    with pytest.raises(ValueError, match="acl.util.ptr_to_numpy: NumPy type number 4096 is not supported"):
        sim.start().util.ptr_to_numpy(0, (), 4096)


def test_tensor_descriptions(sim):
    acl = sim.start()
    desc = acl.create_tensor_desc(0, [1, 16, 3], 2)
    assert acl.get_tensor_desc_num_dims(desc) == 3
    assert acl.get_tensor_desc_dim_v2(desc, 1) == (16, 0)
    assert acl.get_tensor_desc_dim_v2(desc, 3) == (0, 100000)
    made = acl.mdl.create_dataset()
    assert acl.mdl.set_dataset_tensor_desc(made, desc, 0) == (0, 100000)
    acl.mdl.add_dataset_buffer(made, acl.create_data_buffer(4096, 64))
    assert acl.mdl.set_dataset_tensor_desc(made, desc, 0) == (made, 0)
    assert acl.mdl.get_dataset_tensor_desc(made, 0) == desc
    assert acl.mdl.get_dataset_tensor_desc(made, 1) == 0
    assert acl.destroy_tensor_desc(desc) is None
    assert acl.get_tensor_desc_num_dims(desc) == 0
    with pytest.raises(TypeError, match="acl.create_tensor_desc args parse failed"):
        acl.create_tensor_desc(0, [1.5], 2)


def test_descriptions_without_loading(sim):
    acl = sim.start()
    desc = acl.mdl.create_desc()
    assert acl.mdl.get_desc_from_file(desc, str(sim.om_path)) == 0
    assert acl.mdl.get_num_inputs(desc) == 2
    assert acl.mdl.get_input_dynamic_dims(desc, -1, 0) == ([], 0)
    assert acl.mdl.get_input_dynamic_dims(desc, -1, 2) == ([], 100000)
    assert acl.mdl.get_desc_from_file(desc, "none.om") == 145002


def test_last_error_is_peeked_at_and_forgotten(sim):
    acl = sim.start()
    assert acl.rt.get_last_error(0) == 0
    assert acl.rt.free(0) == 100000
    assert acl.rt.malloc(64, 0)[1] == 0
    assert [acl.rt.peek_at_last_error(0), acl.rt.get_last_error(0), acl.rt.get_last_error(0)] == [100000, 100000, 0]
    assert acl.rt.get_last_error(5) == 100000


def test_error_messages_of_the_process(sim, tmp_path):
    import threading

    config = tmp_path / "acl.json"
    config.write_text('{"err_msg_mode": "1"}')
    acl = sim.acl
    assert acl.init(str(config)) == 0
    thread = threading.Thread(target=acl.rt.set_device, args=(9,))
    thread.start()
    thread.join()
    assert "device id 9" in acl.get_recent_err_msg()
    assert acl.get_recent_err_msg() is None


@pytest.mark.parametrize(
    "text, code",
    [
        ('{"err_msg_mode": 1}', 100000),
        ("[]", 100006),
        ('{"a": ' * 11 + "1" + "}" * 11, 100006),
        ('{"a": ' * 10 + "1" + "}" * 10, 0),
        ('{"a": ' + "[" * 10 + "]" * 10 + "}", 0),
        ("[" * 100000, 100006),
        ('{"dump": {"dump_path": "/nowhere/at/all"}}', 100000),
        ('{"dump": []}', 0),
        ('{"dump": 3}', 100000),
        ('{"dump": {"dump_list": []}}', 100000),
        ('{"dump": {"no": 1}}', 100000),
    ],
)
def test_limits_of_the_configuration(sim, tmp_path, text, code):
    config = tmp_path / "acl.json"
    config.write_text(text)
    assert sim.acl.init(str(config)) == code


def test_profile_summary(sim, tmp_path):
    import json

    from tests.support.sim_device import dataset, io_spans

    acl = sim.start()
    model_id, sets = sim.load_model(), [dataset(acl, spans) for spans in io_spans(acl)]
    assert acl.prof.init(str(tmp_path / "none")) == 100000
    assert acl.prof.init(str(tmp_path)) == 0
    assert acl.prof.init(str(tmp_path)) == 100000
    config = acl.prof.create_config([0], 0xFF, 0, 3)
    assert acl.prof.create_config([7], 0xFF, 0, 3) == 0
    assert acl.mdl.execute(model_id, *sets) == 0
    assert acl.prof.start(config) == 0
    assert acl.prof.destroy_config(config) == 100000
    assert [acl.mdl.execute(model_id, *sets) for _ in range(3)] == [0] * 3
    assert [acl.prof.stop(config), acl.prof.stop(config), acl.prof.destroy_config(config), acl.prof.finalize()] == [
        0,
        100000,
        0,
        0,
    ]
    summary = json.loads(next(tmp_path.glob("PROF_SIMULATED_*/summary.json")).read_text(encoding="utf-8"))
    assert summary["simulated"] is True and summary["models"]["vxm"]["executions"] == 3
