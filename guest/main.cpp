// SPDX-License-Identifier: Apache-2.0
#include "guest/checkpoints.hpp"
#include "guest/file_tasks.hpp"
#include "guest/files.hpp"
#include "guest/job_table.hpp"
#include "guest/languages/language.hpp"
#include "guest/watches.hpp"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <fcntl.h>

/// PID 1 of every machine. Speaks with the server on descriptor 3, takes warm interpreters from
/// descriptor 4 where there is one. When it exits, the kernel ends everything in the machine.
namespace berth::guest {

namespace {

constexpr int channel_fd = 3;
constexpr int side_fd = 4;
/// How long nothing must happen before the guest prepares for the next job.
constexpr int quiet_ms = 1;
/// How soon what a job left behind is looked at again.
constexpr int sweep_again_ms = 1;
/// Exit codes, for whoever looks at the machine's end.
constexpr int exit_peer_gone = 0;
constexpr int exit_protocol_broken = 65;
constexpr int exit_no_descriptors = 71;

bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/// Descriptors 0 to 2 lead nowhere, what was inherited stays here, and nobody reads our memory.
void settle() {
  while (true) {
    int fd = open("/dev/null", O_RDWR);
    if (fd < 0)
      break;
    if (fd > 2) {
      close(fd);
      break;
    }
  }
  for (int fd : {channel_fd, side_fd})
    fcntl(fd, F_SETFD, FD_CLOEXEC);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  signal(SIGPIPE, SIG_IGN);
  umask(022);
}

/// All parts of the guest, and who tells whom.
class guest_program {
public:
  guest_program()
    : channel_(
        loop_, channel_fd, [this](std::span<const char> body) { on_frame(body); },
        [](bool broken) { _exit(broken ? exit_protocol_broken : exit_peer_gone); })
    , interpreters_(loop_, [this](const std::string& language) { channel_.send(warmed{language}); })
    , kernels_(loop_, channel_, interpreters_)
    , checkpoints_(
          loop_, channel_, kernels_,
          {[this](bool force) { return jobs_.why_no_rest(force); }, [this] { jobs_.rest(); }})
    , jobs_(loop_, channel_, interpreters_, kernels_, checkpoints_, files_)
    , watches_(
          loop_, [this] { return !channel_.full(); },
          [this](const files_changed& message) { channel_.send(message); }) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, nullptr);
    signals_.reset(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    loop_.watch(signals_.get(), EPOLLIN, [this](std::uint32_t) {
      signalfd_siginfo info[4];
      (void)!::read(signals_.get(), info, sizeof info);
      jobs_.reap();
    });
    struct stat info;
    if (fstat(side_fd, &info) == 0 && S_ISSOCK(info.st_mode))
      interpreters_.serve(owned_fd{side_fd});
  }

  [[noreturn]] void run() {
    say_hello();
    bool prepared = false;
    while (true) {
      channel_.flush();
      bool sweeping = jobs_.sweeping();
      bool busy = !channel_.full() && (tasks_.busy() || watches_.busy());
      int events = loop_.turn(busy ? 0 : sweeping ? sweep_again_ms : prepared ? -1 : quiet_ms);
      prepared = events == 0 && !sweeping && !busy;
      if (busy) {
        tasks_.step();
        watches_.step();
      }
      if (prepared && !checkpoints_.at_rest())
        jobs_.replenish();
      else if (events == 0 && sweeping)
        jobs_.reap();
      checkpoints_.step();
      channel_.flush();
      if (!channel_.full()) {
        jobs_.on_room();
        watches_.on_room();
        kernels_.on_room();
      }
    }
  }

private:
  void say_hello() {
    hello message;
    for (const language& each : all_languages())
      if (each.installed())
        message.languages.emplace_back(each.name);
    channel_.send(message);
  }

  void on_frame(std::span<const char> body) {
    decoded<to_guest> frame = decode_frame<to_guest>(body);
    if (!frame)
      _exit(exit_protocol_broken);
    std::visit([this](auto& message) { on(message); }, *frame);
  }

  void on(start_job& message) {
    if (checkpoints_.at_rest())
      channel_.send(job_refused{message.job, "the machine rests"});
    else
      jobs_.start(std::move(message));
  }
  void on(const stdin_data& message) {
    std::optional<bool> taken = kernels_.feed(message);
    if (!taken)
      taken = jobs_.feed(message);
    if (!*taken)
      _exit(exit_protocol_broken);
  }
  void on(const end_job& message) {
    if (!kernels_.end(message.job))
      jobs_.end(message.job);
  }
  void on(open_kernel& message) {
    jobs_.distrust();
    if (checkpoints_.at_rest())
      channel_.send(kernel_opened{message.context, run_path::cold, "the machine rests"});
    else
      kernels_.open(std::move(message));
  }
  void on(const run_cell& message) { kernels_.run(message); }
  void on(const freeze& message) { checkpoints_.on_freeze(message); }
  void on(const thaw& message) {
    tasks_.root_changed();
    watches_.root_changed();
    checkpoints_.on_thaw(message);
  }
  void on(const drop_checkpoint& message) { checkpoints_.drop(message.checkpoint); }
  void on(const interrupt_kernel& message) { kernels_.interrupt(message.context); }
  void on(const close_kernel& message) { kernels_.close(message.context); }
  void on(const put_file& message) {
    jobs_.distrust();
    channel_.send(put(message));
  }
  void on(const get_file& message) { channel_.send(get(message)); }
  void on(const prepare& message) { jobs_.prepare(message.language); }
  void on(const list_dir& message) {
    tasks_.list(message, [this](const dir_listed& answer) { channel_.send(answer); });
  }
  void on(const stat_path& message) { channel_.send(tell(message)); }
  void on(const make_path& message) { channel_.send(make(message)); }
  void on(const move_path& message) {
    jobs_.distrust();
    channel_.send(guest::move(message));
  }
  void on(const remove_path& message) {
    tasks_.remove(message, [this](const path_done& answer) { channel_.send(answer); });
  }
  void on(const watch_path& message) { channel_.send(watches_.start(message)); }
  void on(const unwatch_path& message) { channel_.send(watches_.end(message)); }
  // Whoever built the machine has renewed all that takes a privilege before this comes.
  void on(const renew&) {
    machine_was_renewed();
    channel_.send(renewed{"the machine shares its host's clock"});
  }
  void on(const limit&) {} // kept by those who built the machine
  void on(const ping& message) { channel_.send(pong{message.request}); }

  event_loop loop_;
  workspace files_{"/tmp"};
  channel channel_;
  interpreters interpreters_;
  kernel_table kernels_;
  checkpoints checkpoints_;
  job_table jobs_;
  file_tasks tasks_;
  watches watches_;
  owned_fd signals_;
};

} // namespace

} // namespace berth::guest

int main() {
  using namespace berth::guest;
  if (!is_open(channel_fd))
    return exit_no_descriptors;
  settle();
  guest_program{}.run();
}
