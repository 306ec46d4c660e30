# Builds the library with one planted bug and runs the test that must notice it (power cuts with commits of both kinds and
# checkpoints; copies): it must fail.  A build that fails, or a test program
# that cannot run, is not a bug found: the report must name a state that broke the rule.
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G ${GENERATOR} -DCMAKE_C_COMPILER=${COMPILER}
                        -DCMAKE_BUILD_TYPE=Release -DSTEAD_BENCH=OFF -DSTEAD_PLANT=${BUG}
                RESULT_VARIABLE rc OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: configuring failed:\n${text}")
endif()
# NO_TAIL is about copies, the others about power cuts.
set(program crash_power)
set(filter power_cut/a_checkpoint*)
set(sign "power cut in ([^\n]*)")
if(BUG STREQUAL "NO_TAIL")
  set(program crash_copy)
  set(filter copy/interrupted_at_every_piece*)
  set(sign "(a mix [^\n]*|stead_check reports a mix)")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} --target ${program} RESULT_VARIABLE rc OUTPUT_VARIABLE text
                        ERROR_VARIABLE text)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: building failed:\n${text}")
endif()
execute_process(COMMAND ${BINARY}/tests/crash/${program} --filter ${filter} RESULT_VARIABLE rc OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: NOT FOUND: the tests passed\n${text}")
endif()
if(NOT text MATCHES "${sign}")
  message(FATAL_ERROR "planted ${BUG}: the tests failed, but not because of what was planted:\n${text}")
endif()
message(STATUS "planted ${BUG}: found: ${CMAKE_MATCH_0}")
