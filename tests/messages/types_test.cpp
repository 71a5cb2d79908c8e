// SPDX-License-Identifier: Apache-2.0
#include "messages/codec.hpp"
#include "tests/messages/generate.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/binary_deserializer.hpp>
#include <caf/binary_serializer.hpp>
#include <catch2/catch.hpp>

#include <functional>

using namespace berth;
using berth::test::each_type;
using berth::test::generate;

namespace {

/// Where the walk over all types is, for the message of a failure.
std::string_view at_type;
std::string_view at_member;

/// A check inside the walk. Catch's macros there, many times for each of the types, would cost
/// minutes of compilation.
void must(bool held, std::string_view what) {
  if (!held)
    FAIL(at_type << "." << at_member << " is not " << what);
}

/// Calls `look` with a generated message of every type.
template <class F>
void each_message(F look) {
  auto one = [&]<class T>() {
    at_type = T::type_name;
    at_member = "";
    look(generate<T>());
  };
  each_type(client_types{}, one);
  each_type(internal_types{}, one);
  each_type(guest_types{}, one);
}

using packer = msgpack::packer<msgpack::sbuffer>;

/// The message without one member, or with something else in its place.
template <class T>
bytes with_member(const T& message, std::string_view name,
                  const std::function<void(packer&)>& instead) {
  msgpack::sbuffer buffer;
  packer out{buffer};
  std::uint32_t count = berth::detail::member_count<T>();
  out.pack_map(instead ? count : count - 1);
  auto write_one = [&](const auto& f) {
    if (name == f.name && !instead)
      return;
    out.pack(f.name);
    if (name == f.name)
      instead(out);
    else
      berth::detail::write(out, message.*(f.member));
  };
  std::apply([&](const auto&... f) { (..., write_one(f)); }, T::fields());
  return {buffer.data(), buffer.data() + buffer.size()};
}

/// What no member of type T can be.
template <class T>
void pack_wrong(packer& out) {
  if constexpr (std::is_same_v<T, bool>)
    out.pack_map(0);
  else
    out.pack_true();
}

} // namespace

TEST_CASE("Every message comes back from msgpack as it was") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    auto back = decode<type>(encode(message));
    must(static_cast<bool>(back), "taken");
    must(*back == message, "as it was");
    if constexpr (std::tuple_size_v < decltype(type::fields()) >> 0)
      must(!(*back == type{}), "filled in");
    // A type with a member of that name cannot be tagged; only the guest's types are.
    if constexpr (std::is_same_v<type, field_info>)
      return;
    auto tagged = object_tree::parse(encode_tagged(message));
    must(static_cast<bool>(tagged), "taken");
    must(type_tag(tagged->root()) == type::type_name, "as it was");
    must(*decode<type>(tagged->root()) == message, "as it was");
  });
}

TEST_CASE("Every message comes back from CAF's serializer as it was") {
  caf::actor_system_config config;
  config.add_message_types<caf::id_block::berth_errors>();
  config.add_message_types<caf::id_block::berth_messages>();
  caf::actor_system system{config};
  each_message([&](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    std::vector<char> buffer;
    caf::binary_serializer sink{system, buffer};
    type copy = message;
    must(!sink(copy), "written");
    type back;
    caf::binary_deserializer source{system, buffer};
    must(!source(back), "read");
    must(back == message, "as it was");
  });
}

TEST_CASE("A missing member is malformed by its name, or keeps its default") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    auto check = [&](const auto& f) {
      at_member = f.name;
      auto nil = [](packer& out) { out.pack_nil(); };
      for (const bytes& data :
           {with_member(message, f.name, {}), with_member(message, f.name, nil)}) {
        auto back = decode<type>(data);
        if (f.need == presence::required) {
          must(!static_cast<bool>(back), "refused");
          must(back.why().field == f.name, "named");
          must(back.why().reason == "is missing", "told as missing");
        } else {
          must(static_cast<bool>(back), "taken");
          must((*back).*(f.member) == type{}.*(f.member), "its default");
        }
      }
    };
    std::apply([&](const auto&... f) { (..., check(f)); }, type::fields());
  });
}

TEST_CASE("A member of the wrong type is malformed by its name") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    auto check = [&](const auto& f) {
      at_member = f.name;
      auto back = decode<type>(
          with_member(message, f.name, pack_wrong<std::decay_t<decltype(message.*(f.member))>>));
      must(!static_cast<bool>(back), "refused");
      must(back.why().field == f.name, "named");
    };
    std::apply([&](const auto&... f) { (..., check(f)); }, type::fields());
  });
}

TEST_CASE("A member that nobody knows is ignored") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    msgpack::sbuffer buffer;
    packer out{buffer};
    out.pack_map(berth::detail::member_count<type>() + 2);
    out.pack("zzz from a later version");
    out.pack_array(1).pack_map(0);
    out.pack(7); // not even a name
    out.pack(8);
    berth::detail::write_members(out, message);
    auto back = decode<type>(std::span<const char>{buffer.data(), buffer.size()});
    must(static_cast<bool>(back), "taken");
    must(*back == message, "as it was");
  });
}

TEST_CASE("A message cut at any byte is malformed") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    bytes whole = encode(message);
    for (std::size_t size = 0; size < whole.size(); ++size)
      must(!decode<type>(std::span<const char>{whole}.first(size)), "refused when cut");
    whole.push_back('\x01');
    must(!static_cast<bool>(decode<type>(whole)), "refused");
  });
}

TEST_CASE("A message with any byte changed is a message or malformed") {
  each_message([](const auto& message) {
    using type = std::decay_t<decltype(message)>;
    bytes whole = encode(message);
    for (std::size_t at = 0; at < whole.size(); ++at)
      for (char value : {'\x00', '\x7f', '\x80', '\xc1', '\xdf', '\xff'}) {
        bytes changed = whole;
        changed[at] = value;
        auto back = decode<type>(changed);
        must(back || !back.why().reason.empty(), "refused with a reason");
      }
  });
}

TEST_CASE("Bombs are refused before they take memory") {
  auto next = GENERATE(values<bytes>({
      {'\xdf', '\x42', '\xe8', '\x00', '\x00'}, // a map of a thousand million
      {'\xdd', '\xff', '\xff', '\xff', '\xff'}, // a list of four thousand million
      {'\xc6', '\xff', '\xff', '\xff', '\xff'}, // four GiB of binary
      {'\xdb', '\xff', '\xff', '\xff', '\xff'}, // four GiB of text
      bytes(2'000'000, '\x91'),                 // lists in lists
      bytes(100, '\x81'),                       // maps in maps
  }));
  auto back = decode<run>(next);
  REQUIRE_FALSE(back);
  CHECK_FALSE(back.why().reason.empty());
}

TEST_CASE("Text must be UTF-8 and numbers must fit") {
  run message = generate<run>();
  auto code = [&](std::string_view text) {
    return with_member(message, "code", [=](packer& out) {
      out.pack_str(static_cast<std::uint32_t>(text.size()));
      out.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
    });
  };
  CHECK(decode<run>(code("\xf0\x9f\x98\x80")));
  for (std::string_view bad :
       {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    auto back = decode<run>(code(bad));
    REQUIRE_FALSE(back);
    CHECK(back.why().text() == "code: must be UTF-8");
  }
  auto negative =
      decode<run>(with_member(message, "timeout_ms", [](packer& out) { out.pack(-1); }));
  REQUIRE_FALSE(negative);
  CHECK(negative.why().text() == "timeout_ms: must not be negative");
  auto large = decode<berth::read>(with_member(
      generate<berth::read>(), "wait_ms", [](packer& out) { out.pack(std::uint64_t{1} << 32); }));
  REQUIRE_FALSE(large);
  CHECK(large.why().text() == "wait_ms: is too large");
  auto inner = decode<run>(with_member(message, "files", [](packer& out) {
    out.pack_array(1).pack_map(1);
    out.pack("path");
    out.pack("x");
  }));
  REQUIRE_FALSE(inner);
  CHECK(inner.why().text() == "files[0].data: is missing");
}

TEST_CASE("The reference lists every operation and every member of its messages") {
  description all = make_description();
  auto type_of = [&](std::string_view name) -> const type_info* {
    for (const type_info& type : all.types)
      if (type.name == name)
        return &type;
    return nullptr;
  };
  CHECK(all.operations.size() == std::tuple_size_v<decltype(operations)>);
  CHECK(all.errors.size() + 1 == ec_names.size());
  auto check_type = [&]<class T>() {
    const type_info* type = type_of(T::type_name);
    INFO(T::type_name);
    REQUIRE(type != nullptr);
    std::size_t at = 0;
    auto check = [&](const auto& f) {
      REQUIRE(at < type->fields_of.size());
      const field_info& told = type->fields_of[at++];
      CHECK(told.name == f.name);
      CHECK(told.required == (f.need == presence::required));
      CHECK_FALSE(told.type.empty());
      CHECK_FALSE(told.meaning.empty());
    };
    std::apply([&](const auto&... f) { (..., check(f)); }, T::fields());
  };
  auto check_operation = [&]<class Request, class Reply>(const operation<Request, Reply>& op) {
    INFO(op.op);
    bool listed = false;
    for (const operation_info& told : all.operations)
      listed = listed
               || (told.op == op.op && told.request == Request::type_name
                   && told.reply == Reply::type_name && !told.meaning.empty());
    CHECK(listed);
    check_type.template operator()<Request>();
    check_type.template operator()<Reply>();
  };
  std::apply([&](const auto&... op) { (..., check_operation(op)); }, operations);
}
