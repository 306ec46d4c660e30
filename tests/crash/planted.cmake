# Builds the library with one planted bug and runs the power-cut test that has commits of both kinds and
# checkpoints: it must fail.  A build that fails, or a test program
# that cannot run, is not a bug found: the report must name a state that broke the rule.
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY} -G ${GENERATOR} -DCMAKE_C_COMPILER=${COMPILER}
                        -DCMAKE_BUILD_TYPE=Release -DSTEAD_BENCH=OFF -DSTEAD_PLANT=${BUG}
                RESULT_VARIABLE rc OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: configuring failed:\n${text}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BINARY} --target crash_power RESULT_VARIABLE rc OUTPUT_VARIABLE text
                        ERROR_VARIABLE text)
if(NOT rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: building failed:\n${text}")
endif()
execute_process(COMMAND ${BINARY}/tests/crash/crash_power --filter power_cut/a_checkpoint* RESULT_VARIABLE rc OUTPUT_VARIABLE text ERROR_VARIABLE text)
if(rc EQUAL 0)
  message(FATAL_ERROR "planted ${BUG}: NOT FOUND: the power-cut tests passed\n${text}")
endif()
if(NOT text MATCHES "power cut in ([^\n]*)")
  message(FATAL_ERROR "planted ${BUG}: the tests failed, but not because of a state of the disk:\n${text}")
endif()
message(STATUS "planted ${BUG}: found: power cut in ${CMAKE_MATCH_1}")
