// The few fields of JSON lines that ratings need; everything else is checked and skipped.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace scdr {

constexpr std::size_t kJsonFields = 4;

// Attributes:
//   rows: a line for each line of the data: the fields, tabs between them, missing ones empty.
//   left: lines, from 0, that are not plain enough to be taken here; their fields are empty.
struct JsonRows {
  std::string rows;
  std::vector<std::int64_t> left;
};

// Takes fields of the objects of JSON lines; data ends with a newline or is empty. The first `ids`
// keys are ids: a string without escapes, or a whole number that is not negative. The others are
// measures: such a string, or any number. null and a missing key are empty, of several equal keys
// the last counts. A line is left when it is blank, no object, not valid JSON in UTF-8, has an
// escape in a key or nests deeper than 32, or when a field is none of these or a number that a
// double may not hold as it is written. So no field holds a tab, a quote or a line's end.
JsonRows take_json_fields(std::string_view data,
                          const std::array<std::string_view, kJsonFields>& keys, std::size_t ids);

}  // namespace scdr
