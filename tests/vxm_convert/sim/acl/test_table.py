# SPDX-License-Identifier: Apache-2.0
"""Every function of the interface exists, is listed, parses its arguments as a C binding does, and survives its failure
paths.
"""

from __future__ import annotations

import inspect

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


def function(acl, name):
    module, _, short = name.rpartition(".")
    return getattr(getattr(acl, module) if module else acl, short)


def plain(letters):
    return [PLAIN[letter] for letter in letters.partition("|")[0]]


def test_the_table_is_the_interface():
    assert {row.name: row.letters for row in args.TABLE.values()} == dict(ROWS)


@pytest.mark.parametrize("module", sorted(INTERFACE))
def test_functions_are_listed_and_nothing_else(sim, module):
    owner = getattr(sim.acl, module) if module else sim.acl
    listed = {name for name in dir(owner) if not name.startswith("_")}
    named = {word.split(":")[0] for word in INTERFACE[module].split()}
    assert listed == (named if module else named | {"rt", "mdl", "prof", "util"})
    assert all(inspect.isfunction(getattr(owner, name)) for name in named)


@pytest.mark.parametrize("name, letters", ROWS)
def test_wrong_types_and_counts(sim, name, letters):
    call = function(sim.start(), name)
    required = letters.partition("|")[0]
    if not letters:
        return
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


@pytest.mark.parametrize("name, letters", ROWS)
def test_numpy_integers_are_no_pointers_but_may_be_numbers(sim, name, letters):
    """What the parser alone decides; the calls themselves are not made."""
    row = args.TABLE[name]
    for place, letter in enumerate(letters.partition("|")[0]):
        values = plain(letters)
        values[place] = np.int64(1)
        if letter in "IiO":
            assert args.parse(row, tuple(values))[place] == 1
        else:
            with pytest.raises(TypeError):
                args.parse(row, tuple(values))


@pytest.mark.parametrize("name, letters", [row for row in ROWS if not set("O") & set(row[1])])
def test_null_arguments_give_codes_of_the_reference_and_no_crash(sim, name, letters):
    """Null pointers, index 0, empty texts: the right number of values comes back, with a listed code at the end."""
    acl = sim.start()
    row = args.TABLE[name]
    if name in ("util.ptr_to_numpy", "util.ptr_to_bytes"):
        with pytest.raises(ValueError):
            function(acl, name)(*[4096 if letter == "I" else value for letter, value in zip(letters, plain(letters))])
        return
    result = function(acl, name)(*plain(letters))
    if row.bare:
        return
    code = result[-1] if row.otherwise else result
    assert code == 0 or code in CODES
    assert not row.otherwise or len(result) == len(row.otherwise) + 1


@pytest.mark.parametrize("name, letters", ROWS)
def test_before_init_only_bookkeeping_works(sim, name, letters):
    row = args.TABLE[name]
    if row.needs and not set("O") & set(letters):
        result = function(sim.acl, name)(*plain(letters))
        assert (result[-1] if row.otherwise else result) == 100001


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
