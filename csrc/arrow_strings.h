// Strings of an Arrow stream (https://arrow.apache.org/docs/format/CStreamInterface.html), as
// polars hands them over, without a copy.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace scdr {

// The structures of the interface, by its names.
struct ArrowSchema {
  const char* format;
  const char* name;
  const char* metadata;
  std::int64_t flags;
  std::int64_t n_children;
  ArrowSchema** children;
  ArrowSchema* dictionary;
  void (*release)(ArrowSchema*);
  void* private_data;
};

struct ArrowArray {
  std::int64_t length;
  std::int64_t null_count;
  std::int64_t offset;
  std::int64_t n_buffers;
  std::int64_t n_children;
  const void** buffers;
  ArrowArray** children;
  ArrowArray* dictionary;
  void (*release)(ArrowArray*);
  void* private_data;
};

struct ArrowArrayStream {
  int (*get_schema)(ArrowArrayStream*, ArrowSchema* out);
  int (*get_next)(ArrowArrayStream*, ArrowArray* out);
  const char* (*get_last_error)(ArrowArrayStream*);
  void (*release)(ArrowArrayStream*);
  void* private_data;
};

// A schema or an array, which is its taker's to release.
template <class Arrow>
struct ArrowHeld {
  ArrowHeld() = default;
  ArrowHeld(const ArrowHeld&) = delete;
  ArrowHeld& operator=(const ArrowHeld&) = delete;
  ~ArrowHeld() {
    if (held.release != nullptr) held.release(&held);
  }
  Arrow held{};
};

// Calls take(strings) for every array of a stream of string views; strings are valid within it.
// Throws std::invalid_argument where the stream is of anything else or holds a null.
template <class Take>
void for_each_array(ArrowArrayStream& stream, const Take& take) {
  const auto check = [&](int error) {
    if (error == 0) return;
    const char* const why = stream.get_last_error(&stream);
    throw std::runtime_error(why != nullptr ? why : "the Arrow stream failed");
  };
  ArrowHeld<ArrowSchema> schema;
  check(stream.get_schema(&stream, &schema.held));
  if (std::strcmp(schema.held.format, "vu") != 0)
    throw std::invalid_argument("the column is not of strings");
  std::vector<std::string_view> strings;
  for (;;) {
    ArrowHeld<ArrowArray> next;
    check(stream.get_next(&stream, &next.held));
    const ArrowArray& array = next.held;
    if (array.release == nullptr) return;
    if (array.null_count != 0) throw std::invalid_argument("the column holds a null");
    strings.clear();
    strings.reserve(static_cast<std::size_t>(array.length));
    // A view is 16 bytes: the length, then the text itself where it has at most 12, else its first
    // 4, the number of its buffer, and its place there.
    const char* view = static_cast<const char*>(array.buffers[1]) + 16 * array.offset;
    for (std::int64_t row = 0; row < array.length; ++row, view += 16) {
      std::int32_t length, buffer, place;
      std::memcpy(&length, view, 4);
      const char* text = view + 4;
      if (length > 12) {
        std::memcpy(&buffer, view + 8, 4);
        std::memcpy(&place, view + 12, 4);
        text = static_cast<const char*>(array.buffers[2 + buffer]) + place;
      }
      strings.emplace_back(text, static_cast<std::size_t>(length));
    }
    take(strings);
  }
}

}  // namespace scdr
