// scdr._C: what takes NumPy arrays or bytes and not tensors, and the facts of the build. Importing
// it also registers the ops (library.cpp).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <exception>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "arrow_strings.h"
#include "cpu/simd.h"
#include "id_table.h"
#include "json_lines.h"
#include "k_core.h"
#include "row_order.h"
#include "slices.h"

namespace py = pybind11;

namespace {

using Indices = py::array_t<std::int32_t, py::array::c_style>;

Indices as_indices(const py::array& array, const std::string& name) {
  if (!py::isinstance<Indices>(array) || array.ndim() != 1)
    throw py::value_error(name + ": must be a contiguous int32 array of one dimension");
  if (array.size() > std::numeric_limits<std::uint32_t>::max())
    throw py::value_error(name + ": more than 2^32 - 1 rows");
  return Indices(array);
}

void check_range(const std::int32_t* ids, std::int64_t rows, std::int64_t n,
                 const std::string& name) {
  std::int32_t lowest = 0, highest = -1;
  for (std::int64_t row = 0; row < rows; ++row) {
    lowest = ids[row] < lowest ? ids[row] : lowest;
    highest = ids[row] > highest ? ids[row] : highest;
  }
  if (lowest < 0 || highest >= n)
    throw py::value_error(name + ": holds " + std::to_string(lowest < 0 ? lowest : highest) +
                          ", outside [0, " + std::to_string(n) + ")");
}

// Users and items of the same rows.
struct Pairs {
  Pairs(const py::array& users_array, const py::array& items_array, std::int64_t n_users_,
        std::int64_t n_items_)
      : users(as_indices(users_array, "users")),
        items(as_indices(items_array, "items")),
        n_users(n_users_),
        n_items(n_items_) {
    if (users.size() != items.size())
      throw py::value_error("items: has " + std::to_string(items.size()) + " rows, users has " +
                            std::to_string(users.size()));
    if (n_users < 0) throw py::value_error("n_users: is negative");
    if (n_items < 0) throw py::value_error("n_items: is negative");
  }

  // fill(users, items, rows, keep), without the GIL, on indices in range.
  template <class Fill>
  py::array_t<bool> mask(const Fill& fill) const {
    const std::int64_t rows = users.size();
    const std::int32_t* user = users.data();
    const std::int32_t* item = items.data();
    py::array_t<bool> keep(rows);
    bool* kept = keep.mutable_data();
    const py::gil_scoped_release release;
    check_range(user, rows, n_users, "users");
    check_range(item, rows, n_items, "items");
    fill(user, item, rows, kept);
    return keep;
  }

  Indices users, items;
  std::int64_t n_users, n_items;
};

py::array_t<bool> k_core(const py::array& users, const py::array& items, std::int64_t n_users,
                         std::int64_t n_items, std::int64_t k) {
  const Pairs pairs(users, items, n_users, n_items);
  if (k < 0) throw py::value_error("k: is negative");
  return pairs.mask([&](const std::int32_t* user, const std::int32_t* item, std::int64_t rows,
                        bool* keep) { scdr::k_core(user, item, rows, n_users, n_items, k, keep); });
}

py::array_t<bool> last_of_pairs(const py::array& users, const py::array& items,
                                std::int64_t n_users, std::int64_t n_items) {
  return Pairs(users, items, n_users, n_items)
      .mask([&](const std::int32_t* user, const std::int32_t* item, std::int64_t rows, bool* keep) {
        scdr::last_of_pairs(user, item, rows, n_users, n_items, keep);
      });
}

py::array_t<std::int64_t> stable_order(const py::array& times) {
  using Times = py::array_t<std::int64_t, py::array::c_style>;
  if (!py::isinstance<Times>(times) || times.ndim() != 1)
    throw py::value_error("times: must be a contiguous int64 array of one dimension");
  if (times.size() > std::numeric_limits<std::uint32_t>::max())
    throw py::value_error("times: more than 2^32 - 1 rows");
  const Times values(times);
  py::array_t<std::int64_t> order(values.size());
  const std::int64_t* time = values.data();
  std::int64_t* row = order.mutable_data();
  const std::int64_t rows = values.size();
  const py::gil_scoped_release release;
  scdr::stable_order(time, rows, row);
  return order;
}

// A table that several threads may use.
struct SharedIdTable {
  scdr::IdTable table;
  std::mutex mutex;

  py::array_t<std::int32_t> code(const py::object& ids) {
    const py::capsule capsule = ids.attr("__arrow_c_stream__")();
    auto* const stream = static_cast<scdr::ArrowArrayStream*>(
        PyCapsule_GetPointer(capsule.ptr(), "arrow_array_stream"));
    if (stream == nullptr) throw py::error_already_set();
    py::array_t<std::int32_t> codes(static_cast<py::ssize_t>(py::len(ids)));
    std::int32_t* at = codes.mutable_data();
    const std::int32_t* const end = at + codes.size();
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(mutex);
      scdr::for_each_array(*stream, [&](const std::vector<std::string_view>& strings) {
        if (end - at < static_cast<std::ptrdiff_t>(strings.size()))
          throw std::invalid_argument("ids: are more than their length");
        table.code(strings.data(), strings.size(), at);
        at += strings.size();
      });
    }
    if (at != end) throw py::value_error("ids: are fewer than their length");
    return codes;
  }

  py::list ids() {
    const std::lock_guard lock(mutex);
    py::list names(table.size());
    for (std::size_t code = 0; code < table.size(); ++code)
      names[code] = py::str(table.ids()[code].data(), table.ids()[code].size());
    return names;
  }

  py::array_t<std::int32_t> ranks() {
    const std::lock_guard lock(mutex);
    const std::vector<std::int32_t> ranks = table.ranks();
    return py::array_t<std::int32_t>(static_cast<py::ssize_t>(ranks.size()), ranks.data());
  }

  std::size_t size() {
    const std::lock_guard lock(mutex);
    return table.size();
  }

  std::size_t bytes() {
    const std::lock_guard lock(mutex);
    return table.bytes();
  }
};

py::tuple take_json_fields(const py::buffer& data, const std::vector<std::string>& keys,
                           std::size_t ids) {
  if (keys.size() != scdr::kJsonFields)
    throw py::value_error("keys: must be " + std::to_string(scdr::kJsonFields));
  std::array<std::string_view, scdr::kJsonFields> wanted;
  std::copy(keys.begin(), keys.end(), wanted.begin());
  const py::buffer_info bytes = data.request();
  if (bytes.itemsize != 1 || bytes.ndim != 1 || bytes.strides[0] != 1)
    throw py::value_error("data: must be bytes");
  const std::string_view text(static_cast<const char*>(bytes.ptr),
                              static_cast<std::size_t>(bytes.size));
  scdr::JsonRows result;
  {
    const py::gil_scoped_release release;
    result = scdr::take_json_fields(text, wanted, ids);
  }
  return py::make_tuple(py::bytes(result.rows), py::cast(result.left));
}

// The op between hook and caller knows only std::exception, so that what the hook raised waits
// here.
py::object in_slices(const py::function& work, const py::object& progress) {
  std::exception_ptr raised;
  const scdr::SliceHook hook = [&](std::int64_t done, std::int64_t total) {
    const py::gil_scoped_acquire hold;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!progress.is_none()) progress(done, total);
    } catch (...) {
      raised = std::current_exception();
      throw std::runtime_error("stopped between slices");
    }
  };
  const scdr::SliceHookScope scope(&hook);
  try {
    return work();
  } catch (...) {
    if (raised) std::rethrow_exception(raised);
    throw;
  }
}

py::dict build_facts() {
  py::dict facts;
  facts["version"] = SCDR_VERSION;
  facts["compiler"] = SCDR_COMPILER;
  facts["torch"] = SCDR_TORCH_VERSION;
  facts["simd_compiled"] = scdr::simd_compiled();
  facts["simd"] = scdr::simd_name(scdr::simd_level());
  facts["cuda_architectures"] = SCDR_CUDA_ARCHITECTURES;
  facts["cuda_compiler"] = SCDR_CUDA_COMPILER;
  facts["cuda_why_not"] = SCDR_CUDA_WHY_NOT;
  facts["sanitizer"] = static_cast<bool>(SCDR_SANITIZE);
  return facts;
}

}  // namespace

PYBIND11_MODULE(_C, module, py::mod_gil_not_used()) {
  module.doc() =
      "Native side of scdr: cleaning of ratings, JSON fields, build facts, the ops' registration.";
  module.def("k_core", &k_core, py::arg("users"), py::arg("items"), py::arg("n_users"),
             py::arg("n_items"), py::arg("k"),
             "Iterative k-core of the bipartite graph of users and items.\n\n"
             "users, items: int32 [n]; returns bool [n], True for the rows of the largest subset\n"
             "in which every user and every item has at least k rows. O(n). Releases the GIL.\n"
             "ValueError names the argument that is wrong.");
  module.def("last_of_pairs", &last_of_pairs, py::arg("users"), py::arg("items"),
             py::arg("n_users"), py::arg("n_items"),
             "Which rows no later row of the same user and item replaces.\n\n"
             "users, items: int32 [n]; returns bool [n]. O(n). Releases the GIL. ValueError names\n"
             "the argument that is wrong.");
  module.def("stable_order", &stable_order, py::arg("times"),
             "The rows in order of time, those of equal time as they stood.\n\n"
             "times: int64 [n]; returns int64 [n], what numpy.argsort(times, kind='stable') does.\n"
             "O(n). Releases the GIL. ValueError says what is wrong with times.");
  py::class_<SharedIdTable>(module, "IdTable",
                            "The different ids of a column, numbered as they are met.")
      .def(py::init<>())
      .def("code", &SharedIdTable::code, py::arg("ids"),
           "The numbers of ids, int32 [n]; ids is a polars Series of strings, without nulls.\n"
           "Releases the GIL. ValueError says what ids holds that it must not.")
      .def("ids", &SharedIdTable::ids, "The ids by number, a list of str.")
      .def("ranks", &SharedIdTable::ranks,
           "The place of each id among all by code point, int32 [len(self)].")
      .def("__len__", &SharedIdTable::size)
      .def_property_readonly("bytes", &SharedIdTable::bytes, "Of all it holds in memory.");
  module.def(
      "take_json_fields", &take_json_fields, py::arg("data"), py::arg("keys"), py::arg("ids"),
      "Fields of JSON lines as rows of text.\n\n"
      "data: whole lines in bytes; keys: four, empty for none, the first `ids` of which are\n"
      "ids. Returns (rows, left): for each line the values with tabs between them, in bytes,\n"
      "and the lines, from 0, whose values are empty because JSON that is not plain is for\n"
      "others to read (json_lines.h says what is plain). Releases the GIL.");
  module.def("in_slices", &in_slices, py::arg("work"), py::arg("progress"),
             "work(), whose ops are interrupted about ten times a second to let signals through\n"
             "and to call progress(done, total) unless it is None. What either raises ends the op\n"
             "at that place and comes out here.");
  module.def("build_facts", &build_facts, "What this library was built from and for, as a dict.");
}
