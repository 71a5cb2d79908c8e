// SPDX-License-Identifier: Apache-2.0
#include "fuzz/targets.hpp"

#include "actors/agents/code_blocks.hpp"
#include "actors/code_rules.hpp"
#include "actors/redaction.hpp"
#include "bridge/http/fcctl/translate.hpp"
#include "bridge/http/message.hpp"
#include "bridge/http/multipart.hpp"
#include "bridge/json.hpp"
#include "bridge/zmq/envelope.hpp"
#include "config/network.hpp"
#include "config/role_book.hpp"
#include "config/settings.hpp"
#include "machines/egress/limits.hpp"
#include "machines/egress/request_head.hpp"
#include "machines/firecracker/api.hpp"
#include "machines/firecracker/fault_handler.hpp"
#include "machines/namespace/archive.hpp"
#include "machines/namespace/packet_link.hpp"
#include "messages/codec.hpp"
#include "messages/types.hpp"
#include "store/log_record.hpp"
#include "store/record_log.hpp"

#include <sys/socket.h>

#include "models/dialect.hpp"
#include "models/limits.hpp"
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace berth::fuzz {

namespace {

void hold(bool promise) {
  if (!promise)
    std::abort();
}

template <class T>
void decode_as(const object_tree& tree) {
  auto message = decode<T>(tree.root());
  if (!message) {
    hold(!message.why().reason.empty());
    return;
  }
  bytes again = encode(*message);
  auto back = decode<T>(again);
  hold(static_cast<bool>(back) && encode(*back) == again);
}

template <class... Ts>
void decode_all(type_list<Ts...>, const object_tree& tree) {
  (..., decode_as<Ts>(tree));
}

template <class T>
void read_json_as(const json& tree) {
  auto message = from_json<T>(tree);
  if (!message) {
    hold(!message.why().text().empty());
    return;
  }
  auto back = from_json<T>(to_json(*message));
  hold(static_cast<bool>(back) && encode(*back) == encode(*message));
}

template <class... Ts>
void read_all_json(type_list<Ts...>, const json& tree) {
  (..., read_json_as<Ts>(tree));
}

/// The pieces that are each preceded by their length, the last one cut off where the data ends.
std::vector<std::span<const char>> pieces_of(std::span<const char> data) {
  std::vector<std::span<const char>> pieces;
  while (!data.empty()) {
    std::size_t size =
        std::min<std::size_t>(static_cast<unsigned char>(data.front()), data.size() - 1);
    pieces.push_back(data.subspan(1, size));
    data = data.subspan(1 + size);
  }
  return pieces;
}

} // namespace

void messages(std::span<const char> data) {
  auto tree = object_tree::parse(data);
  if (!tree)
    return;
  decode_all(client_types{}, *tree);
  decode_all(internal_types{}, *tree);
  decode_all(guest_types{}, *tree);
}

void frames(std::span<const char> data) {
  guest::frame_cutter cutter;
  std::size_t piece = data.empty() ? 1 : 1 + static_cast<unsigned char>(data.front());
  for (std::size_t at = 0; at < data.size(); at += piece) {
    cutter.push(data.subspan(at, std::min(piece, data.size() - at)));
    while (auto body = cutter.next()) {
      hold(!body->empty() && body->size() <= limits::frame_bytes_max);
      (void)guest::decode_frame<guest::from_guest>(*body);
      (void)guest::decode_frame<guest::to_guest>(*body);
    }
  }
}

void firecracker_answer(std::span<const char> data) {
  if (data.empty())
    return;
  namespace fc = machines::firecracker;
  using state = fc::answer_reader::state;
  const std::string_view text{data.data() + 1, data.size() - 1};
  const std::size_t cut = std::min<std::size_t>(static_cast<unsigned char>(data[0]), text.size());
  fc::answer_reader whole;
  const state at_once = whole.push(text);
  fc::answer_reader pieces;
  state in_two = pieces.push(text.substr(0, cut));
  if (in_two == state::whole)
    return; // what follows would be another answer
  in_two = pieces.push(text.substr(cut));
  hold(at_once == in_two);
  hold((at_once == state::broken) == !whole.why().empty());
  if (at_once != state::whole)
    return;
  hold(whole.status() == pieces.status() && whole.body() == pieces.body());
  hold(whole.body().size() <= fc::body_bytes_max);
  auto said = fc::read_reply(whole.status(), whole.body());
  hold(said.ok() == (said.status == 204 || (said.status == 200 && said.value.is_object())));
  hold(said.error.size() <= fc::fault_bytes_max);
}

void firecracker_memory(std::span<const char> data) {
  constexpr std::uint64_t memory_bytes = 1 << 30;
  auto regions = machines::read_regions({data.data(), data.size()}, memory_bytes);
  if (!regions)
    return;
  hold(!regions->empty());
  for (const auto& one : *regions)
    hold(one.offset <= memory_bytes && one.bytes <= memory_bytes - one.offset
         && one.address + one.bytes >= one.address);
}

void settings_file(std::span<const char> data) {
  auto values = parse_settings({data.data(), data.size()}, "fuzz");
  if (values)
    hold(!check(*values));
  else
    hold(!describe_error(values.error()).empty());
}

void roles_config(std::span<const char> data) {
  static const auto values = std::make_shared<const settings>();
  static const auto shipped = std::make_shared<const config::ordered>(config::ordered::parse(
      R"({"roles": {"A": {"llm_api_key": "secret of A"}, "B": {}}, "default_role": "A"})"));
  std::string_view text{data.data(), data.size()};
  auto holds = [&](const role_book& book) {
    bool said = text.find("secret of") != text.npos || text.find('\\') != text.npos;
    hold(said || book.public_text().find("secret of A") == std::string::npos);
    hold(static_cast<bool>(book.find("")) && static_cast<bool>(book.list("")));
    auto again = role_book::open(values, shipped, book.changes_text(), "fuzz");
    hold(static_cast<bool>(again) && again->public_text() == book.public_text());
    auto same = book.replaced(book.public_text());
    hold(static_cast<bool>(same) && same->public_text() == book.public_text());
  };
  auto book = role_book::open(values, shipped, "", "fuzz");
  hold(static_cast<bool>(book));
  if (auto posted = book->replaced(text))
    holds(*posted);
  else
    hold(!describe_error(posted.error()).empty());
  if (auto changed = role_book::open(values, shipped, text, "fuzz"))
    holds(*changed);
}

void programs(std::span<const char> data) {
  static const code_rules rules{vm_execution_policy{}};
  std::string_view code{data.data(), data.size()};
  for (const char* language : {"bash", "python", "javascript", "rust", "go"})
    (void)rules.judge(code, language);
  bytes output{data.begin(), data.end()};
  bool changed = redact(output);
  hold(changed || std::equal(output.begin(), output.end(), data.begin(), data.end()));
}

void http_json(std::span<const char> data) {
  static const settings values;
  auto tree = parse_json({data.data(), data.size()});
  if (!tree) {
    hold(!tree.why().reason.empty());
    return;
  }
  auto again = parse_json(json_text(*tree));
  hold(static_cast<bool>(again));
  read_all_json(client_types{}, *tree);
  (void)http::fcctl::read_execute(*tree, values);
}

void http_form(std::span<const char> data) {
  std::string_view text{data.data(), data.size()};
  std::size_t line = std::min(text.find('\n'), text.size());
  http::request asked;
  if (http::parse_target(text.substr(0, line), asked))
    for (const auto& part : asked.path)
      hold(part.size() <= line);
  auto parts = http::read_form(text.substr(0, line), text.substr(std::min(line + 1, text.size())));
  if (!parts) {
    hold(!parts.why().reason.empty());
    return;
  }
  for (const auto& part : *parts)
    hold(part.data.size() <= text.size());
}

void model_text(std::span<const char> data) {
  std::string_view text{data.data(), data.size()};
  auto blocks = find_code(text);
  std::size_t at = 0;
  for (const auto& block : blocks) {
    hold(block.start >= at && block.start < block.end && block.end <= text.size());
    hold(block.code.size() <= block.end - block.start);
    hold(block.confidence >= 0 && block.confidence <= 1);
    at = block.start;
    (void)json_text(http::fcctl::block_json(block));
  }
  auto intent = find_intent(text, !blocks.empty());
  hold(intent.confidence >= 0 && intent.confidence <= 1);
}

namespace {

/// What came of an answer, and the promises that hold of every one.
struct read_model_answer {
  models::answer_reader::state end;
  std::string fault;
  model_answer answer;

  bool operator==(const read_model_answer&) const = default;
};

read_model_answer read_answer_as(const char* provider, std::string_view data, std::size_t bytes_max,
                                 std::size_t piece_max) {
  using state = models::answer_reader::state;
  auto reader =
      models::dialect_of(provider).read_answer({.bytes_max = bytes_max, .id_prefix = "call_"});
  std::string told;
  for (std::size_t at = 0; at < data.size();) {
    auto piece = data.substr(at, std::min(piece_max, 1 + at % 7 * piece_max / 7));
    (void)reader->push(piece);
    told += reader->take_news();
    at += piece.size();
  }
  read_model_answer got{.end = reader->end(), .fault = {}, .answer = {}};
  told += reader->take_news();
  got.fault = reader->fault();
  got.answer = reader->take_answer();
  const model_answer& answer = got.answer;
  hold(told == answer.text && is_utf8(answer.text) && answer.text.size() <= bytes_max);
  hold(got.fault.empty() == (got.end != state::broken && got.end != state::refused));
  hold(answer.tool_calls.size() <= limits::model_tool_calls_max);
  hold(got.end != state::full || answer.tool_calls.empty());
  for (const tool_call& each : answer.tool_calls)
    hold(!each.name.empty() && !each.id.empty() && each.arguments.size() <= bytes_max);
  return got;
}

/// However an answer is cut, the same comes of it; a small bound holds, too.
void answer_of(const char* provider, std::span<const char> data) {
  std::string_view text{data.data(), data.size()};
  constexpr std::size_t room = 1024 * 1024;
  auto whole = read_answer_as(provider, text, room, room);
  if (text.size() < room)
    hold(whole == read_answer_as(provider, text, room, 7));
  (void)read_answer_as(provider, text, 16, 7);
}

} // namespace

void ollama_answer(std::span<const char> data) {
  answer_of("ollama", data);
}

void openai_answer(std::span<const char> data) {
  answer_of("openai", data);
}

void zmq_message(std::span<const char> data) {
  // A ROUTER puts the peer's identity before what a client sent: there is always one frame.
  std::vector<zmq::message_t> frames;
  frames.emplace_back(std::string_view{"peer"});
  for (auto piece : pieces_of(data))
    if (frames.size() < zmq_frames_max)
      frames.emplace_back(piece.data(), piece.size());
  auto incoming = read_frames(frames, frames.size());
  if (incoming.why.code != 0) {
    hold(!incoming.why.detail.empty());
    return;
  }
  hold(incoming.from.hops.size() <= zmq_hops_max);
  auto tree = object_tree::parse(incoming.body);
  if (!tree)
    return;
  zmq_call call = read_call(tree->root());
  hold(call.why.code != 0 || !call.op.empty());
  (void)encode_refusal(call.id, call.why);
}

void packets(std::span<const char> data) {
  using machines::spawner::packet_link;
  int ends[2];
  hold(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
  owned_fd peer{ends[0]};
  packet_link link{owned_fd{ends[1]}};
  for (auto piece : pieces_of(data)) {
    if (::send(peer.get(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
      return;
    machines::spawner::request asked{};
    std::size_t size = 0;
    std::vector<owned_fd> fds;
    auto got = link.receive(std::as_writable_bytes(std::span{&asked, 1}), size, fds);
    hold(fds.empty() && size <= sizeof asked);
    hold(got != packet_link::received::packet || size == piece.size());
  }
}

void journal_log(std::span<const char> data) {
  // The bytes as a segment's: whatever they are, scanning ends, and goes only forward.
  std::uint64_t salt = 0;
  if (data.size() > sizeof salt)
    std::memcpy(&salt, data.data(), sizeof salt);
  auto body = data.subspan(std::min(sizeof salt, data.size()));
  log_scanner scan{body, salt, log_head_bytes};
  std::uint64_t before = scan.offset();
  do {
    while (auto payload = scan.next()) {
      hold(scan.offset() > before);
      before = scan.offset();
      (void)read_record(*payload);
    }
  } while (scan.resume());
  (void)scan.is_torn();
  // The bytes as a record's payload: what is read lies inside them.
  auto record = read_record(data);
  if (!record)
    return;
  for (std::string_view part : {record->id, record->agent, record->session, record->machine,
                                record->language, record->code})
    hold(part.data() >= data.data() && part.data() + part.size() <= data.data() + data.size());
  hold(record->result.data() + record->result.size() <= data.data() + data.size());
  (void)decode<stored_request>(record->request);
  (void)decode<outcome>(record->result);
}

namespace {

/// Holds an archive's reader to what it promises its sink.
class strict_sink : public machines::archive::sink {
public:
  using attributes = machines::archive::attributes;

  bool closed() const { return depth_ == 0 && size_ == 0; }

  int enter(std::string_view name, const attributes& what, bool) override {
    hold(depth_ == 0 ? name.empty() : good(name));
    hold(++depth_ <= machines::archive::depth_max);
    return judge(what);
  }
  int leave(const attributes&) override {
    hold(depth_-- > 0);
    return 0;
  }
  int file(std::string_view name, const attributes& what, std::uint64_t size) override {
    hold(good(name) && size <= INT64_MAX);
    size_ = size;
    at_ = 0;
    return judge(what);
  }
  int data(std::uint64_t offset, std::span<const char> bytes) override {
    hold(offset >= at_ && !bytes.empty() && offset <= size_ && bytes.size() <= size_ - offset);
    at_ = offset + bytes.size();
    return 0;
  }
  int file_end(const attributes&) override {
    size_ = 0;
    return 0;
  }
  int hard_link(std::string_view name, std::string_view target) override {
    hold(good(name) && !target.starts_with('/') && !target.ends_with('/'));
    for (std::size_t at = 0; at <= target.size();) {
      auto end = std::min(target.find('/', at), target.size());
      hold(good(target.substr(at, end - at)));
      at = end + 1;
    }
    return 0;
  }
  int symbolic_link(std::string_view name, const attributes& what,
                    std::string_view target) override {
    hold(good(name) && !target.empty() && target.find('\0') == std::string_view::npos);
    return judge(what);
  }
  int pipe(std::string_view name, const attributes& what) override {
    hold(good(name));
    return judge(what);
  }
  int whiteout(std::string_view name) override {
    hold(good(name));
    return 0;
  }
  int attribute(std::string_view name, std::span<const char> value) override {
    hold(depth_ > 0 && machines::is_program_attribute(name));
    hold(name.size() <= 255 && name.find('\0') == std::string_view::npos);
    hold(value.size() <= machines::archive::value_bytes_max);
    return 0;
  }

private:
  static bool good(std::string_view name) {
    return !name.empty() && name.size() <= 255 && name != "." && name != ".."
           && name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
  }
  static int judge(const attributes& what) {
    hold((what.mode & ~07777) == 0 && what.mtime_ns < 1'000'000'000);
    return 0;
  }

  std::size_t depth_ = 0;
  std::uint64_t size_ = 0;
  std::uint64_t at_ = 0;
};

} // namespace

void archives(std::span<const char> data) {
  strict_sink sink;
  std::size_t at = 0;
  auto from = [&](std::span<char> buffer) -> ssize_t {
    // Pieces of any size, so that every border between them is met.
    std::size_t piece = std::min({buffer.size(), data.size() - at, 1 + at % 7});
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(at), piece, buffer.begin());
    at += piece;
    return static_cast<ssize_t>(piece);
  };
  if (machines::archive::read(from, sink).empty())
    hold(sink.closed() && at == data.size());
}

namespace {

/// One line, and no second one in it.
bool is_one_line(std::string_view text) {
  return std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; });
}

void check_forward(const machines::egress::request_head& head) {
  std::string_view text = head.forward;
  std::size_t hosts = 0;
  std::size_t lines = 0;
  hold(text.ends_with("\r\n\r\n") && text.size() < 2 * machines::egress::head_bytes_max);
  for (text.remove_suffix(2); !text.empty(); ++lines) {
    auto end = text.find("\r\n");
    hold(end != std::string_view::npos && end > 0);
    std::string_view line = text.substr(0, end);
    hold(std::ranges::none_of(line, [](char c) { return c == '\r' || c == '\n' || c == '\0'; }));
    if (line.size() > 5 && ::strncasecmp(line.data(), "host:", 5) == 0)
      ++hosts;
    hold(::strncasecmp(line.data(), "proxy-", std::min<std::size_t>(6, line.size())) != 0
         || line.size() < 6);
    text.remove_prefix(end + 2);
  }
  hold(hosts == 1 && lines <= machines::egress::headers_max + 4);
}

} // namespace

void egress_request(std::span<const char> data) {
  std::string_view text{data.data(), data.size()};
  std::size_t size = machines::egress::head_size(text);
  hold(size <= std::min(text.size(), machines::egress::head_bytes_max + 4));
  auto read = machines::egress::parse_request_head(text.substr(0, size));
  if (const auto* why = std::get_if<machines::egress::rejection>(&read)) {
    std::string said = machines::egress::rejection_text(*why);
    hold(is_one_line(said.substr(0, said.find("\r\n"))));
  } else {
    const auto& head = std::get<machines::egress::request_head>(read);
    hold(size > 0 && head.to.port != 0 && head.to.address.has_value() == head.to.name.empty());
    hold(is_one_line(head.to.text()));
    // It is read back as what it is.
    hold(machines::egress::parse_destination(head.to.text()) == head.to);
    if (!head.tunnel)
      check_forward(head);
  }
  auto rule = parse_network_rule(text.substr(0, text.find('\n')));
  if (rule && !rule->address && !rule->below)
    hold(names_host(*rule, rule->name, rule->port));
  else if (rule && rule->address)
    hold(names_address(*rule, *rule->address, rule->port));
}

} // namespace berth::fuzz
