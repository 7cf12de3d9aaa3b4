#include "json_lines.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <bit>

namespace scdr {
namespace {

constexpr int kDeepest = 32;
// Written with no more digits, a double gives back the number as it was written, an integer of
// 64 bits a whole one.
constexpr std::ptrdiff_t kDigits = 15, kWholeDigits = 18;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// What ends a run of plain characters in a string: a quote, a backslash, a control character.
bool ends_run(unsigned char c) { return c == '"' || c == '\\' || c < 0x20; }

// Well-formed byte sequences of the Unicode standard, table 3-7.
bool is_utf8(std::string_view text) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  const auto* const end = at + text.size();
  while (at != end) {
    const unsigned char lead = *at++;
    if (lead < 0x80) continue;
    if (lead < 0xC2 || lead > 0xF4) return false;
    const std::ptrdiff_t more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    if (end - at < more) return false;
    const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (*at < low || *at > high) return false;
    for (std::ptrdiff_t i = 1; i < more; ++i)
      if ((at[i] & 0xC0) != 0x80) return false;
    at += more;
  }
  return true;
}

enum class Kind { text, whole, number, null, other };

struct Value {
  Kind kind = Kind::null;
  std::string_view text;  // of a string without its quotes; only of text and numbers
};

// One line. A function that returns false has met what is not valid or not plain.
class Line {
 public:
  // Of data that ends at data_end. What ends the line, a newline or that end, ends a run as well.
  Line(std::string_view line, const char* data_end)
      : line_(line), at_(line.data()), end_(at_ + line.size()), data_end_(data_end) {}

  // Calls take(key, value) for each member; take returns false to give up.
  template <class Take>
  bool object(const Take& take) {
    skip_space();
    if (!members(0, take)) return false;
    skip_space();
    return at_ == end_ && (!beyond_ascii_ || is_utf8(line_));
  }

 private:
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }

  bool next(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  template <class Take>
  bool members(int depth, const Take& take) {
    if (!next('{') || depth > kDeepest) return false;
    skip_space();
    if (next('}')) return true;
    do {
      Value key, value;
      skip_space();
      if (!string(key) || key.kind != Kind::text) return false;
      skip_space();
      if (!next(':')) return false;
      skip_space();
      if (!any(depth, value) || !take(key.text, value)) return false;
      skip_space();
    } while (next(','));
    return next('}');
  }

  bool elements(int depth) {
    if (!next('[') || depth > kDeepest) return false;
    skip_space();
    if (next(']')) return true;
    do {
      Value value;
      skip_space();
      if (!any(depth, value)) return false;
      skip_space();
    } while (next(','));
    return next(']');
  }

  bool any(int depth, Value& value) {
    value.kind = Kind::other;
    switch (at_ == end_ ? '\0' : *at_) {
      case '"':
        return string(value);
      case '{':
        return members(depth + 1, [](std::string_view, const Value&) { return true; });
      case '[':
        return elements(depth + 1);
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        value.kind = Kind::null;
        return word("null");
      default:
        return number(value);
    }
  }

  bool word(std::string_view word) {
    if (std::string_view(at_, static_cast<std::size_t>(end_ - at_)).substr(0, word.size()) != word)
      return false;
    at_ += word.size();
    return true;
  }

  // A number without exponent and with few enough digits.
  bool number(Value& value) {
    const char* const begin = at_;
    const bool negative = next('-');
    const std::ptrdiff_t before = digits();
    if (before == 0 || (before > 1 && at_[-before] == '0')) return false;
    value.kind = negative ? Kind::number : Kind::whole;
    std::ptrdiff_t after = 0;
    if (next('.')) {
      value.kind = Kind::number;
      after = digits();
      if (after == 0) return false;
    }
    value.text = {begin, static_cast<std::size_t>(at_ - begin)};
    return before + after <= (after ? kDigits : kWholeDigits);
  }

  std::ptrdiff_t digits() {
    const char* const begin = at_;
    while (at_ != end_ && is_digit(*at_)) ++at_;
    return at_ - begin;
  }

  // text where it holds no escape, other where it does.
  bool string(Value& value) {
    if (!next('"')) return false;
    const char* const begin = at_;
    value.kind = Kind::text;
    for (;;) {
      to_run_end();
      if (at_ == end_) return false;
      if (next('"')) break;
      if (!next('\\') || !escape()) return false;
      value.kind = Kind::other;
    }
    value.text = {begin, static_cast<std::size_t>(at_ - begin - 1)};
    return true;
  }

  void to_run_end() {
#ifdef __SSE2__
    constexpr std::ptrdiff_t step = 16;
    for (; data_end_ - at_ >= step; at_ += step) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at_));
      const __m128i highest = _mm_set1_epi8(0x1F);  // of the control characters
      const __m128i ends = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')),
                                                     _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'))),
                                        _mm_cmpeq_epi8(_mm_max_epu8(bytes, highest), highest));
      const auto place = static_cast<unsigned>(_mm_movemask_epi8(ends));
      const auto beyond = static_cast<unsigned>(_mm_movemask_epi8(bytes));
      if (place != 0) {
        const int plain = std::countr_zero(place);
        beyond_ascii_ = beyond_ascii_ || (beyond & ((1U << plain) - 1)) != 0;
        at_ += plain;
        return;
      }
      beyond_ascii_ = beyond_ascii_ || beyond != 0;
    }
#endif
    for (; at_ != end_; ++at_) {
      const auto c = static_cast<unsigned char>(*at_);
      if (ends_run(c)) return;
      beyond_ascii_ = beyond_ascii_ || c >= 0x80;
    }
  }

  bool escape() {
    if (at_ == end_) return false;
    const char c = *at_++;
    if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
    const char* const unit = at_;
    if (!hex_unit()) return false;
    if ((unit[0] | 0x20) != 'd' || unit[1] < '8') return true;
    // surrogates, D800 to DBFF and then DC00 to DFFF
    if ((unit[1] | 0x20) >= 'c' || !next('\\') || !next('u')) return false;
    const char* const low = at_;
    return hex_unit() && (low[0] | 0x20) == 'd' && (low[1] | 0x20) >= 'c';
  }

  bool hex_unit() {
    if (end_ - at_ < 4 || !std::all_of(at_, at_ + 4, is_hex)) return false;
    at_ += 4;
    return true;
  }

  std::string_view line_;
  const char* at_;
  const char* end_;
  const char* data_end_;
  bool beyond_ascii_ = false;
};

}  // namespace

JsonRows take_json_fields(std::string_view data,
                          const std::array<std::string_view, kJsonFields>& keys, std::size_t ids) {
  JsonRows result;
  result.rows.reserve(data.size() / 8);
  std::array<std::string_view, kJsonFields> fields;
  const auto take = [&](std::string_view key, const Value& value) {
    for (std::size_t k = 0; k < kJsonFields; ++k) {
      if (keys[k].empty() || key != keys[k]) continue;
      if (value.kind == Kind::other || (value.kind == Kind::number && k < ids)) return false;
      fields[k] = value.text;
    }
    return true;
  };
  const char* const data_end = data.data() + data.size();
  for (std::int64_t number = 0; !data.empty(); ++number) {
    const std::size_t length = std::min(data.find('\n'), data.size());
    fields.fill({});
    if (!Line(data.substr(0, length), data_end).object(take)) {
      fields.fill({});
      result.left.push_back(number);
    }
    for (std::size_t k = 0; k < kJsonFields; ++k)
      result.rows.append(fields[k]).push_back(k + 1 < kJsonFields ? '\t' : '\n');
    data.remove_prefix(std::min(length + 1, data.size()));
  }
  return result;
}

}  // namespace scdr
