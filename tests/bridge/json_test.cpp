// SPDX-License-Identifier: Apache-2.0
#include "bridge/json.hpp"
#include "messages/types.hpp"

#include <catch2/catch.hpp>

#include <random>

using namespace berth;

namespace {

/// Makes any message, different for each seed.
class maker {
public:
  explicit maker(unsigned seed)
    : random_(seed) {}

  template <class T>
  T make() {
    if constexpr (std::is_same_v<T, bool>) {
      return random_() % 2 == 0;
    } else if constexpr (named_enum<T>) {
      return static_cast<T>(random_() % enum_names(T{}).size());
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(random_() % 1000) / 8;
    } else if constexpr (std::is_integral_v<T>) {
      switch (random_() % 3) {
      case 0:
        return std::numeric_limits<T>::max();
      case 1:
        return std::numeric_limits<T>::min();
      default:
        return static_cast<T>(random_());
      }
    } else if constexpr (std::is_same_v<T, std::string>) {
      static const std::vector<std::string> texts{"", "plain", "\"\\\n\t\x01",
                                                  "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"};
      return texts[random_() % texts.size()];
    } else if constexpr (std::is_same_v<T, bytes>) {
      bytes data(random_() % 7);
      for (char& c : data)
        c = static_cast<char>(random_());
      return data;
    } else if constexpr (is_maybe<T>) {
      return random_() % 2 == 0 ? T{} : T{make<typename T::value_type>()};
    } else if constexpr (is_vector<T>) {
      T list;
      for (unsigned i = 0; i < random_() % 3; ++i)
        list.push_back(make<typename T::value_type>());
      return list;
    } else if constexpr (is_text_map<T>) {
      T map;
      map[make<std::string>()] = make<typename T::mapped_type>();
      return map;
    } else {
      T message;
      std::apply(
          [&](const auto&... f) {
            (..., (message.*(f.member) = make<std::decay_t<decltype(message.*(f.member))>>()));
          },
          T::fields());
      return message;
    }
  }

private:
  std::mt19937_64 random_;
};

template <class T>
void check_round_trip() {
  INFO(T::type_name);
  for (unsigned seed = 0; seed < 40; ++seed) {
    T message = maker{seed}.make<T>();
    auto tree = parse_json(json_text(to_json(message)));
    REQUIRE(tree);
    auto back = from_json<T>(*tree);
    INFO(json_text(*tree));
    REQUIRE(back);
    CHECK(*back == message);
  }
}

template <class T>
void check_faults() {
  INFO(T::type_name);
  json whole = to_json(maker{1}.make<T>());
  auto check_member = [&](const auto& f) {
    json without = whole;
    without.erase(f.name);
    auto absent = from_json<T>(without);
    CHECK(bool(absent) == (f.need == presence::optional));
    if (!absent)
      CHECK(absent.why().text() == std::string{f.name} + ": is missing");
    json wrong = whole;
    wrong[f.name] = json::array({json::array()});
    auto bad = from_json<T>(wrong);
    REQUIRE(!bad);
    CHECK(bad.why().field.rfind(f.name, 0) == 0);
    CHECK(bad.why().reason.find("must be") == 0);
  };
  std::apply([&](const auto&... f) { (..., check_member(f)); }, T::fields());
  whole["a member of the future"] = {1, {2}};
  CHECK(from_json<T>(whole));
  CHECK(!from_json<T>(json::array()));
}

template <class... Ts>
void check_all(type_list<Ts...>) {
  (..., check_round_trip<Ts>());
  (..., check_faults<Ts>());
}

} // namespace

TEST_CASE("Every client message survives JSON, and every fault in it names the member", "[json]") {
  check_all(client_types{});
}

TEST_CASE("Bytes are text where they can be and base64 where they cannot", "[json]") {
  placed_file file{.path = "x", .data = {'a', '\n'}};
  CHECK(to_json(file)["data"] == "a\n");
  file.data = {'\xFF', '\x00', 'a'};
  CHECK(to_json(file)["data"] == json{{"base64", "/wBh"}});
  auto back = from_json_text<placed_file>(R"({"path":"x","data":{"base64":"_wBh"}})");
  REQUIRE(back);
  CHECK(back->data == file.data);
  auto bad = from_json_text<placed_file>(R"({"path":"x","data":{"base64":"a!"}})");
  REQUIRE(!bad);
  CHECK(bad.why().text() == "data.base64: is not base64");
}

TEST_CASE("Base64 is read and written at every length", "[json]") {
  std::string data;
  for (int i = 0; i < 40; ++i) {
    auto back = from_base64(to_base64(data));
    REQUIRE(back);
    CHECK(*back == data);
    data += static_cast<char>(i * 37);
  }
  CHECK(to_base64("foob") == "Zm9vYg==");
  CHECK(!from_base64("a"));
  CHECK(!from_base64("Zm=v"));
}

TEST_CASE("Numbers outside a member's range are told apart", "[json]") {
  auto why = [](const char* text) {
    auto request =
        from_json_text<run>(std::string{R"({"code":"x","language":"python",)"} + text + "}");
    REQUIRE(!request);
    return request.why().text();
  };
  CHECK(why(R"("timeout_ms":-1)") == "timeout_ms: must not be negative");
  CHECK(why(R"("timeout_ms":1.5)") == "timeout_ms: must be a whole number, is a fraction");
  CHECK(why(R"("timeout_ms":"1")") == "timeout_ms: must be a whole number, is text");
  CHECK(why(R"("files":[{"path":"a","data":"","mode":4294967296}])")
        == "files[0].mode: is too large");
  CHECK(why(R"("env":{"A":1})") == "env.A: must be text, is a whole number");
}

TEST_CASE("What is not JSON is refused with the place, and deep or wide JSON before it is built",
          "[json]") {
  CHECK(!parse_json(""));
  auto bad = parse_json("{\"a\":}");
  REQUIRE(!bad);
  CHECK(bad.why().reason.find("line 1, column 6") != std::string::npos);
  CHECK(is_utf8(parse_json("{\"\xFF\":1}").why().reason));
  CHECK(!parse_json("\"\\ud800\""));
  CHECK(!parse_json("1e999"));
  CHECK(!parse_json(std::string(1'000'000, '[')));
  CHECK(!parse_json(std::string(1'000'000, '[') + std::string(1'000'000, ']')));
  std::string wide = "[";
  for (int i = 0; i < 300'000; ++i)
    wide += "1,";
  CHECK(!parse_json(wide + "1]"));
  CHECK(!parse_json("[1,2]", {.text_bytes = 4}));
  CHECK(parse_json(std::string(64, '[') + std::string(64, ']')));
  CHECK(parse_json(R"({"a":"[[[\"{{{"})"));
}

TEST_CASE("The last of equal member names wins", "[json]") {
  auto tree = parse_json(R"({"a":1,"a":2})");
  REQUIRE(tree);
  CHECK((*tree)["a"] == 2);
}

TEST_CASE("Text from bytes is UTF-8 with one mark for each bad byte", "[json]") {
  CHECK(to_utf8("a\xFF\xFE"
                "b\xC3\xA9\xE2\x82")
        == "a\xEF\xBF\xBD\xEF\xBF\xBD"
           "b\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD");
}
